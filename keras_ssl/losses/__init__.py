"""Losses: pure functions, computed in at least float32; each states what it averages over."""

from keras_ssl.losses.classification import cross_entropy_loss
from keras_ssl.losses.contrastive import info_nce_loss, nt_xent_loss
from keras_ssl.losses.cross_view import center_and_sharpen, dino_loss, swav_loss
from keras_ssl.losses.numeric import l2_normalize, promote
from keras_ssl.losses.regression import (
    byol_loss,
    mae_loss,
    normalize_patches,
    normalized_regression_loss,
)

__all__ = [
    "byol_loss",
    "center_and_sharpen",
    "cross_entropy_loss",
    "dino_loss",
    "info_nce_loss",
    "l2_normalize",
    "mae_loss",
    "normalize_patches",
    "normalized_regression_loss",
    "nt_xent_loss",
    "promote",
    "swav_loss",
]
