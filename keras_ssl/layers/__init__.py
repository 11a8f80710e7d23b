"""Layers: batch-norm, heads, transformer blocks, patches and positions."""

from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.mlp import MLP
from keras_ssl.layers.patches import PatchEmbedding, patchify, unpatchify
from keras_ssl.layers.positions import bicubic_matrix, interpolate_positions, sincos_positions
from keras_ssl.layers.stochastic_depth import stochastic_depth
from keras_ssl.layers.transformer import TransformerBlock

__all__ = [
    "MLP",
    "BatchNormalization",
    "PatchEmbedding",
    "TransformerBlock",
    "bicubic_matrix",
    "interpolate_positions",
    "patchify",
    "sincos_positions",
    "stochastic_depth",
    "unpatchify",
]
