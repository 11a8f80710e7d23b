"""The running mean of the teacher's logits."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.losses.numeric import promote


@keras.saving.register_keras_serializable(package="keras_ssl")
class Center(keras.layers.Layer):
    """DINO's center: c <- momentum c + (1 - momentum) (mean of the teacher's raw logits).

    It is subtracted from the teacher's logits, so no output can win for every image.

    Args:
        dim: int. Number of logits.
        momentum: float in [0, 1]. Defaults to `0.9`.

    Weight, not trained: `center` `(dim,)`, zeros at the start.

    Reference: Caron et al., 2021, https://arxiv.org/abs/2104.14294, equation 4.
    """

    def __init__(self, dim: int, momentum: float = 0.9, **kwargs):
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"Expected dim to be an int of at least 1. Received: dim={dim}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"Expected momentum in [0, 1]. Received: momentum={momentum}")
        super().__init__(autocast=False, **kwargs)
        self.dim, self.momentum = dim, momentum
        self._center = self.add_weight(
            shape=(dim,), initializer="zeros", trainable=False, name="center"
        )
        self.built = True

    @property
    def value(self) -> tf.Tensor:
        """The center, `(dim,)`."""
        return tf.convert_to_tensor(self._center)

    def update(self, batch_mean: tf.Tensor) -> None:
        """Moves the center; after the loss of the step that used it.

        Args:
            batch_mean: `(dim,)`. Mean of the raw logits over the global batch and all views, equal on all replicas.

        Raises:
            ValueError: If the shape does not fit.
        """
        mean = promote(tf.stop_gradient(batch_mean))
        if mean.shape != (self.dim,):
            raise ValueError(
                f"Expected batch_mean ({self.dim},). Received: batch_mean of shape {tuple(mean.shape)}"
            )
        center = tf.cast(self.value, mean.dtype)
        center = self.momentum * center + (1.0 - self.momentum) * mean
        self._center.assign(tf.cast(center, self._center.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "momentum": self.momentum}
