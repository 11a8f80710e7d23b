"""Images to patches, patches to images, patches to tokens."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def patchify(images: tf.Tensor, patch_size: int) -> tf.Tensor:
    """Cuts images into flattened square patches.

    Args:
        images: `(batch, height, width, channels)`; static height and width, multiples of `patch_size`.
        patch_size: int > 0. Side of a patch in pixels.

    Returns:
        `(batch, rows * columns, patch_size * patch_size * channels)`. Patches go row by row; within a patch the order
        is (row, column, channel), that of MAE's targets.

    Raises:
        ValueError: if the sides are unknown or no multiples of `patch_size`.
    """
    _, height, width, channels = images.shape
    if None in (height, width, channels) or height % patch_size or width % patch_size:
        raise ValueError(
            f"Expected images with static sides that are multiples of patch_size={patch_size}. "
            f"Received: images.shape={tuple(images.shape)}"
        )
    rows, columns = height // patch_size, width // patch_size
    x = tf.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    x = tf.transpose(
        x, (0, 1, 3, 2, 4, 5)
    )  # (batch, rows, columns, row in patch, column in patch, channels)
    return tf.reshape(x, (-1, rows * columns, patch_size * patch_size * channels))


def unpatchify(patches: tf.Tensor, grid: tuple[int, int], patch_size: int) -> tf.Tensor:
    """Puts the patches of `patchify` back together.

    Args:
        patches: `(batch, rows * columns, patch_size * patch_size * channels)`.
        grid: (rows, columns).
        patch_size: int > 0. Side of a patch in pixels.

    Returns:
        `(batch, rows * patch_size, columns * patch_size, channels)`, bit for bit what `patchify` was given.

    Raises:
        ValueError: if the number or the length of the patches does not fit.
    """
    rows, columns = grid
    _, count, length = patches.shape
    if count != rows * columns or length is None or length % patch_size**2:
        raise ValueError(
            f"Expected (batch, {rows * columns}, {patch_size**2} * channels) for grid={tuple(grid)} and "
            f"patch_size={patch_size}. Received: patches.shape={tuple(patches.shape)}"
        )
    channels = length // patch_size**2
    x = tf.reshape(patches, (-1, rows, columns, patch_size, patch_size, channels))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, rows * patch_size, columns * patch_size, channels))


@keras.saving.register_keras_serializable(package="keras_ssl")
class PatchEmbedding(keras.layers.Layer):
    """Projects each patch linearly to a token.

    The same function as a convolution with stride = kernel size: its kernel `(patch_size, patch_size, channels, width)`
    reshaped to `(patch_size * patch_size * channels, width)` is the kernel of this layer.

    Args:
        patch_size: int > 0. Side of a patch in pixels.
        width: int > 0. Token width.
        kernel_initializer: initializer of the `(patch_size * patch_size * channels, width)` kernel. Defaults to
            `"glorot_uniform"`.

    Input: `(batch, height, width, channels)`. Output: `(batch, rows * columns, width)`.
    """

    def __init__(
        self, patch_size: int, width: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("patch_size", patch_size), ("width", width)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.patch_size = patch_size
        self.width = width
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        length = self.patch_size**2 * input_shape[-1]
        self.kernel = self.add_weight(
            shape=(length, self.width), initializer=self.kernel_initializer, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")
        self.built = True

    def call(self, images: tf.Tensor) -> tf.Tensor:
        patches = patchify(images, self.patch_size)
        return tf.matmul(patches, tf.convert_to_tensor(self.kernel)) + tf.convert_to_tensor(
            self.bias
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "width": self.width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
