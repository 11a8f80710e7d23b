"""Weights of other people's networks in ours and back: one layout for each family of checkpoints."""

from __future__ import annotations

from keras_ssl.conversion import color, plain
from keras_ssl.conversion.byol import BYOL_HAIKU
from keras_ssl.conversion.convnext import DINOV3_CONVNEXT
from keras_ssl.conversion.engine import Layout, Port, Turn, convert, extract, weights_digest
from keras_ssl.conversion.heads import HEAD_LAYOUTS, HEADS, build_head, read_head
from keras_ssl.conversion.preact import LOCAL_AGGREGATION_TF1
from keras_ssl.conversion.regnet import VISSL_REGNET
from keras_ssl.conversion.simclr import SIMCLR_TF1, SIMCLR_TF1_EMA, SIMCLR_TF2
from keras_ssl.conversion.swin import SWIN
from keras_ssl.conversion.torchvision import TORCHVISION_RESNET, VISSL_RESNET_COLORIZATION
from keras_ssl.conversion.vit import DINOV2, DINOV3, TIMM_VIT
from keras_ssl.conversion.xcit import XCIT

# By name; a published encoder says which layout its file has.
LAYOUTS: dict[str, Layout] = {
    "torchvision_resnet": TORCHVISION_RESNET,
    "vissl_resnet_colorization": VISSL_RESNET_COLORIZATION,
    "simclr_tf1": SIMCLR_TF1,
    "simclr_tf1_ema": SIMCLR_TF1_EMA,
    "simclr_tf2": SIMCLR_TF2,
    "byol_haiku": BYOL_HAIKU,
    "vissl_regnet": VISSL_REGNET,
    "dinov3_convnext": DINOV3_CONVNEXT,
    "xcit": XCIT,
    "local_aggregation_tf1": LOCAL_AGGREGATION_TF1,
    "swin": SWIN,
    **{layout.name: layout for layout in (TIMM_VIT, DINOV2, DINOV3)},
    **plain.LAYOUTS,
    **color.LAYOUTS,
    **HEAD_LAYOUTS,
}

__all__ = [
    "HEADS",
    "LAYOUTS",
    "Layout",
    "Port",
    "Turn",
    "build_head",
    "convert",
    "extract",
    "read_head",
    "weights_digest",
]
