"""Optimizers with parameter groups and exact behavior on many replicas, and schedules of the step."""

from keras_ssl.optimizers.adam import LAMB, AdamW
from keras_ssl.optimizers.base import Rates, SSLOptimizer
from keras_ssl.optimizers.groups import ParameterGroup
from keras_ssl.optimizers.lars import LARS
from keras_ssl.optimizers.layer_decay import layer_decay, layer_ids
from keras_ssl.optimizers.schedules import (
    Constant,
    CosineRamp,
    StepDecay,
    WarmupCosine,
    cosine_ramp,
    linear_ramp,
    scale_learning_rate,
    teacher_momentum,
)
from keras_ssl.optimizers.sgd import SGD

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "AdamW",
    "Constant",
    "CosineRamp",
    "ParameterGroup",
    "Rates",
    "SSLOptimizer",
    "StepDecay",
    "WarmupCosine",
    "cosine_ramp",
    "layer_decay",
    "layer_ids",
    "linear_ramp",
    "scale_learning_rate",
    "teacher_momentum",
]
