"""The perceptron with batch-norm that projectors and predictors are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.batch_norm import BatchNormalization

ACTIVATIONS = ("relu", "gelu")
OUTPUT_NORMS = ("none", "full", "scale", "plain")


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Returns x * Phi(x), exact; `tf.nn.gelu` rounds its constant to float32 whatever the dtype."""
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


def torch_linear_initializer() -> keras.initializers.Initializer:
    """Returns PyTorch's default for linear kernels: uniform in +-1/sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_in", distribution="uniform")


@keras.saving.register_keras_serializable(package="keras_ssl")
class MLP(keras.layers.Layer):
    """Dense layers with batch-norm and an activation after every one but the last.

    The heads of the papers are settings of this layer:

    | head | settings |
    | --- | --- |
    | SimCLR | `use_bias=False, output_norm="scale", kernel_initializer=RandomNormal(stddev=0.01)` |
    | SwAV | the defaults |
    | MoCo v2 | `hidden_norm=False` |
    | BYOL, VICReg | `output_bias=False` |
    | Barlow Twins | `use_bias=False` |
    | MoCo v3 | `use_bias=False, output_norm="plain"` |
    | DINO | `activation="gelu", hidden_norm=False, kernel_initializer=RandomNormal(stddev=0.02)` |

    Args:
        widths: sequence of ints > 0. Output width of each dense layer.
        use_bias: bool. Bias of the hidden dense layers. Defaults to `True`.
        output_bias: bool or None. Bias of the last dense layer; None means as `use_bias`. Defaults to `None`.
        hidden_norm: bool. Whether batch-norm follows each hidden dense layer. Defaults to `True`.
        output_norm: str. Batch-norm after the last dense layer: `"none"`, `"full"` (gamma and beta), `"scale"` (gamma
            only) or `"plain"` (neither). Defaults to `"none"`.
        activation: str. `"relu"` or `"gelu"` (exact). Defaults to `"relu"`.
        kernel_initializer: initializer or None; None is PyTorch's default for linear layers, uniform in
            +-1/sqrt(fan_in). Each layer draws its own numbers, unless the initializer has a seed. Biases start at 0.
            Defaults to `None`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.

    Input: `(batch, ..., features)`. Output: `(batch, ..., widths[-1])`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        use_bias: bool = True,
        output_bias: bool | None = None,
        hidden_norm: bool = True,
        output_norm: str = "none",
        activation: str = "relu",
        kernel_initializer: Any = None,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(
                f"`widths` must be one or more positive ints. Received: widths={widths}"
            )
        if output_norm not in OUTPUT_NORMS:
            raise ValueError(
                f"`output_norm` must be one of {OUTPUT_NORMS}. Received: output_norm={output_norm!r}"
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {ACTIVATIONS}. Received: activation={activation!r}"
            )
        self.widths = tuple(widths)
        self.use_bias = use_bias
        self.output_bias = use_bias if output_bias is None else output_bias
        self.hidden_norm = hidden_norm
        self.output_norm = output_norm
        self.activation = activation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.synchronized = synchronized
        self.dense_layers = [self._dense(index) for index in range(len(self.widths))]
        self.norms = [self._norm(index) for index in range(len(self.widths))]

    def _dense(self, index: int) -> keras.layers.Dense:
        last = index == len(self.widths) - 1
        initializer = self.kernel_initializer
        # A Keras initializer object repeats its numbers, so each layer gets a copy.
        return keras.layers.Dense(
            self.widths[index],
            use_bias=self.output_bias if last else self.use_bias,
            kernel_initializer=torch_linear_initializer()
            if initializer is None
            else initializer.clone(),
            dtype=self.dtype_policy,
            name=f"dense{index}",
        )

    def _norm(self, index: int) -> BatchNormalization | None:
        last = index == len(self.widths) - 1
        kind = self.output_norm if last else ("full" if self.hidden_norm else "none")
        if kind == "none":
            return None
        return BatchNormalization(
            center=kind == "full",
            scale=kind != "plain",
            synchronized=self.synchronized,
            dtype=self.dtype_policy,
            name=f"norm{index}",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        shape = tuple(input_shape)
        for dense, norm in zip(self.dense_layers, self.norms, strict=True):
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            if norm is not None:
                norm.build(shape)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = inputs
        for index, (dense, norm) in enumerate(zip(self.dense_layers, self.norms, strict=True)):
            x = dense(x)
            if norm is not None:
                x = norm(x, training=training)
            if index < len(self.widths) - 1:
                x = tf.nn.relu(x) if self.activation == "relu" else gelu(x)
        return x

    def get_config(self) -> dict[str, Any]:
        initializer = self.kernel_initializer
        return {
            **super().get_config(),
            "widths": list(self.widths),
            "use_bias": self.use_bias,
            "output_bias": self.output_bias,
            "hidden_norm": self.hidden_norm,
            "output_norm": self.output_norm,
            "activation": self.activation,
            "kernel_initializer": None
            if initializer is None
            else keras.initializers.serialize(initializer),
            "synchronized": self.synchronized,
        }
