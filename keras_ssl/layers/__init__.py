"""Layers: heads, parts of backbones, and the state of methods."""

from keras_ssl.layers.batch_norm import BatchNormalization, deferred_statistics
from keras_ssl.layers.center import Center
from keras_ssl.layers.convolution import PaddedConvolution, mean_of_map
from keras_ssl.layers.cross_covariance import ClassAttentionBlock, CrossCovarianceBlock
from keras_ssl.layers.ema import clone_frozen, copy_weights, ema_pairs, update_ema
from keras_ssl.layers.mae_decoder import MAEDecoder
from keras_ssl.layers.masking import gather_tokens, num_kept, random_keep_indices, restore_tokens
from keras_ssl.layers.mlp import MLP
from keras_ssl.layers.patches import PatchEmbedding, patchify, unpatchify
from keras_ssl.layers.positions import (
    bicubic_matrix,
    fourier_positions,
    interpolate_positions,
    sincos_positions,
)
from keras_ssl.layers.prototypes import Prototypes, WeightNormDense
from keras_ssl.layers.queue import Queue
from keras_ssl.layers.recompute import recomputed
from keras_ssl.layers.response_norm import local_response_norm
from keras_ssl.layers.rope import rope_periods, rope_rotation, rotate
from keras_ssl.layers.sinkhorn import sinkhorn_codes
from keras_ssl.layers.stochastic_depth import stochastic_depth
from keras_ssl.layers.transformer import TransformerBlock
from keras_ssl.layers.windows import PatchMerging, WindowBlock, relative_positions, shift_mask

__all__ = [
    "MLP",
    "MAEDecoder",
    "BatchNormalization",
    "Center",
    "ClassAttentionBlock",
    "CrossCovarianceBlock",
    "PaddedConvolution",
    "PatchEmbedding",
    "PatchMerging",
    "Prototypes",
    "Queue",
    "TransformerBlock",
    "WeightNormDense",
    "WindowBlock",
    "bicubic_matrix",
    "clone_frozen",
    "copy_weights",
    "deferred_statistics",
    "ema_pairs",
    "fourier_positions",
    "gather_tokens",
    "interpolate_positions",
    "local_response_norm",
    "mean_of_map",
    "num_kept",
    "patchify",
    "random_keep_indices",
    "recomputed",
    "relative_positions",
    "restore_tokens",
    "rope_periods",
    "rope_rotation",
    "rotate",
    "shift_mask",
    "sincos_positions",
    "sinkhorn_codes",
    "stochastic_depth",
    "unpatchify",
    "update_ema",
]
