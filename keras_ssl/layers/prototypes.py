"""Trainable prototypes: SwAV's unit rows and DINO's weight-normalized last layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.mlp import torch_linear_initializer
from keras_ssl.losses.numeric import l2_normalize, promote


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"Expected {name} to be an int of at least 1. Received: {name}={size}")


def _variable_dtype(dtype: Any) -> str:
    """Returns the type a policy keeps its variables in: float32 for the mixed ones.

    As the policy of a layer it keeps the scores from being computed in half precision; `autocast=False` alone does not,
    because the outermost layer of a mixed policy casts its variables all the same (Keras 3.15).
    """
    return keras.dtype_policies.get(dtype).variable_dtype


def _unit_rows(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    """Initializer: directions drawn evenly from the sphere."""
    return tf.cast(l2_normalize(keras.random.normal(shape, dtype=dtype)), dtype)


@keras.saving.register_keras_serializable(package="keras_ssl")
class Prototypes(keras.layers.Layer):
    """Scores of unit vectors against trainable unit rows, one for each prototype; no bias.

    The optimizer moves the rows off the sphere; `renormalize` puts them back, at the start of a training step.
    Scores are computed in at least float32, whatever the policy, as they are divided by 0.05 later.

    Args:
        dim: int. Length of the vectors.
        num_prototypes: int. K.

    Input: `(..., dim)`, unit vectors. Output: `(..., num_prototypes)`, cosines.

    Weights: `kernel` `(num_prototypes, dim)`.

    Reference: Caron et al., 2020, https://arxiv.org/abs/2006.09882, section 3.1.
    """

    def __init__(self, dim: int, num_prototypes: int, *, dtype: Any = None, **kwargs):
        _check_sizes(dim=dim, num_prototypes=num_prototypes)
        super().__init__(dtype=_variable_dtype(dtype), autocast=False, **kwargs)
        self.dim, self.num_prototypes = dim, num_prototypes
        self.kernel = self.add_weight(
            shape=(num_prototypes, dim), initializer=_unit_rows, name="kernel"
        )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = promote(inputs)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), inputs.dtype)
        return tf.einsum("...d,kd->...k", inputs, kernel)

    def renormalize(self) -> None:
        """Scales each row to length 1, in place and without gradient."""
        self.kernel.assign(tf.cast(l2_normalize(self.kernel), self.kernel.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.num_prototypes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "num_prototypes": self.num_prototypes}


@keras.saving.register_keras_serializable(package="keras_ssl")
class WeightNormDense(keras.layers.Layer):
    """Dense layer without bias whose columns have a length of their own: w = g v / |v|.

    DINO's last layer. With unit inputs and g = 1 the outputs are cosines. They are computed in at least float32, as
    they are divided by 0.04 later.

    Args:
        dim: int. Length of the inputs.
        units: int. Number of outputs (prototypes).
        train_norm: bool. Whether g is trained; if not, it stays 1. Defaults to `False`.

    Input: `(..., dim)`. Output: `(..., units)`.

    Weights: `kernel` v `(dim, units)`, uniform in +-1/sqrt(dim) at the start; `norm` g `(1, units)`, 1 at the start. As
    in the authors' code g has two axes, so a rule that spares one-axis tensors from weight decay does decay it.

    Reference: Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868; DINO: Caron et al., 2021,
    https://arxiv.org/abs/2104.14294, appendix C.
    Reference code: facebookresearch/dino `vision_transformer.py`, `DINOHead`.
    """

    def __init__(
        self, dim: int, units: int, *, train_norm: bool = False, dtype: Any = None, **kwargs
    ):
        _check_sizes(dim=dim, units=units)
        super().__init__(dtype=_variable_dtype(dtype), autocast=False, **kwargs)
        self.dim, self.units, self.train_norm = dim, units, train_norm
        self.kernel = self.add_weight(
            shape=(dim, units), initializer=torch_linear_initializer(), name="kernel"
        )
        self.norm = self.add_weight(
            shape=(1, units), initializer="ones", trainable=train_norm, name="norm"
        )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = promote(inputs)
        direction = l2_normalize(tf.convert_to_tensor(self.kernel), axis=0)
        kernel = tf.cast(self.norm, direction.dtype) * direction
        return tf.einsum("...d,du->...u", inputs, tf.cast(kernel, inputs.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "dim": self.dim, "units": self.units, "train_norm": self.train_norm}
