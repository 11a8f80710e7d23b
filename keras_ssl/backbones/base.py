"""What every backbone promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.recompute import recomputed
from keras_ssl.views.lab import rgb_to_lab

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_stages(blocks: Sequence[int], filters: Sequence[int]) -> None:
    """Raises ValueError unless there is one number of blocks and one of channels for each stage."""
    if not blocks or len(blocks) != len(filters):
        raise ValueError(
            "`blocks` and `filters` must have one number for each stage. "
            f"Received: blocks={tuple(blocks)}, filters={tuple(filters)}"
        )


class Backbone(keras.Model):
    """A network from images in [0, 1] to features, with the normalization of its inputs inside.

    Call: `backbone(x, training=None, keys=None, keep=None, mask=None, output="features")`.

    - `x`: float RGB in [0, 1], `(batch, height, width, 3)`, static height and width; any size the network
      can take.
    - `keys`: uint32 `(batch, 2)`; drive drop-path in training.
    - `keep`: int32 `(batch, k)`; indices of the patches that the network sees. `ViT` only.
    - `mask`: bool `(batch, patches)`; True = the patch is replaced by the mask token. `ViT` only.
    - `output`: `"features"`, `"layers"` (adds `"layers"`: what each block or stage gives) or `"attention"`
      (adds `"attention"`; `ViT` only).

    Returns a dict with `"features"` `(batch, feature_dim)` and `"tokens"` `(batch, patches, width)` or `"map"`
    `(batch, h, w, channels)`, in the compute dtype.

    Attributes: `feature_dim`, `image_size` (the size it was built for), `mean`, `std`, `replica_exact` (False
    if it draws random numbers that depend on more than the sample), `recompute` (whether blocks are computed again
    in the backward pass; may be set at any time before the step is compiled), `lightness` (whether the network sees
    L - 50 of CIE Lab, one channel, instead of the normalized colors; `mean` and `std` are None then), `lab` (likewise,
    with a and b).

    All weights exist after construction; `Class.from_config(backbone.get_config())` is a new network of the
    same form.

    Args:
        image_size: int > 0. Side of the images it is built for.
        mean: three floats. Subtracted from RGB in [0, 1].
        std: three floats > 0. Divides after that.
    """

    OUTPUTS: tuple[str, ...] = ("features", "layers")
    replica_exact = True
    recompute = False
    lightness = lab = False

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        # Without autocast: under a half-precision policy the images must stay exact until they are normalized.
        super().__init__(name=name or "backbone", autocast=False, **kwargs)
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(
                f"`image_size` must be a positive int. Received: image_size={image_size!r}"
            )
        self.image_size = image_size
        self.mean = None if mean is None else tuple(float(value) for value in mean)
        self.std = None if std is None else tuple(float(value) for value in std)
        self.feature_dim = 0

    def _finish(self) -> None:
        """Makes all weights; the last line of every constructor."""
        self.build((None, self.image_size, self.image_size, 3))
        if not self.trainable:  # said before there were any parts; to say it again would do nothing
            for part in (*self.layers, *self.variables):
                part.trainable = False

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Returns `(images - mean) / std`, or L - 50 of CIE Lab, or that with a and b; in at least float32.

        Args:
            images: float `(batch, height, width, 3)`, RGB in [0, 1].

        Raises:
            ValueError: if the images are integers or do not have three channels.
        """
        images = self._checked(images)
        if self.lightness or self.lab:
            lab = rgb_to_lab(images)
            centered = lab[..., :1] - 50.0
            return tf.concat([centered, lab[..., 1:]], axis=-1) if self.lab else centered
        mean, std = (tf.constant(value, images.dtype) for value in (self.mean, self.std))
        return (images - mean) / std

    def _run_block(
        self, block: keras.layers.Layer, x: tf.Tensor, training: bool | None, **kwargs: Any
    ) -> tf.Tensor:
        """Returns `block(x, training, ...)`; in training with `recompute`, what is inside is not kept."""
        if not (training and self.recompute):
            return block(x, training=training, **kwargs)
        return recomputed(lambda x: block(x, training=training, **kwargs), x)

    def _run_stages(
        self, stages: Sequence[Sequence[keras.layers.Layer]], x: tf.Tensor, training: bool | None
    ) -> tuple[tf.Tensor, ...]:
        """Returns the maps after each stage of blocks."""
        maps = []
        for stage in stages:
            for block in stage:
                x = self._run_block(block, x, training)
            maps.append(x)
        return tuple(maps)

    @staticmethod
    def _checked(images: tf.Tensor) -> tf.Tensor:
        """Returns the images in at least float32, or says what is wrong with them."""
        images = tf.convert_to_tensor(images)
        if not images.dtype.is_floating or len(images.shape) != 4 or images.shape[-1] != 3:
            raise ValueError(
                "Expected float RGB images in [0, 1], (batch, height, width, 3). "
                f"Received: dtype={images.dtype.name}, shape={tuple(images.shape)}"
            )
        return images if images.dtype == tf.float64 else tf.cast(images, tf.float32)

    def _check_call(self, output: str, keep: Any = None, mask: Any = None) -> None:
        """Refuses outputs and token arguments that this network does not have."""
        if output not in self.OUTPUTS:
            raise ValueError(
                f"`output` of {type(self).__name__} must be one of {self.OUTPUTS}. Received: output={output!r}"
            )
        if "attention" not in self.OUTPUTS and (keep is not None or mask is not None):
            raise ValueError(
                "Expected no `keep` and no `mask`: only a ViT can leave out or hide patches. "
                f"Received: {type(self).__name__} with keep={keep}, mask={mask}"
            )

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None  # `mask` of the call hides patches; it is no Keras mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }
