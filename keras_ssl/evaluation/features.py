"""Features of a frozen encoder for all images of a source, under the evaluation transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ssl import views
from keras_ssl.backbones import Swin, ViT
from keras_ssl.layers import mean_of_map

_SMALL = 64  # pixels; up to here a picture is used whole


def default_crop_ratio(image_size: int) -> float:
    """Returns the share of the shorter side that the central crop keeps: 1.0 up to 64 pixels, else 0.875."""
    return 1.0 if image_size <= _SMALL else 0.875


def encoder_outputs(encoder: Callable, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Calls an encoder in inference mode and returns its outputs as a dict, whatever kind it is.

    Args:
        encoder: Keras layer or model, or any callable; gives a dict with `"features"`, or the features.
        images: `(batch, height, width, 3)` in [0, 1].

    Returns:
        dict with at least `"features"` `(batch, feature_dim)`.
    """
    keyword = {"training": False} if isinstance(encoder, keras.layers.Layer) else {}
    outputs = encoder(images, **keyword)
    outputs = outputs if isinstance(outputs, dict) else {"features": outputs}
    features = outputs.get("features")
    if features is None or len(features.shape) != 2:
        shape = None if features is None else tuple(features.shape)
        raise ValueError(
            "An encoder must give a dict with 'features' (batch, feature_dim), or the features. "
            f"Received: outputs={sorted(outputs)}, features.shape={shape}"
        )
    return outputs


class FeatureExtractor:
    """Runs an encoder over sources, compiled once for all of them.

    The evaluation transform: the central square of `crop_ratio` times the shorter side, resized to `image_size`,
    antialiased. Batch-norm and drop-path run in inference mode. Every call of the encoder sees a full batch: the last
    one is filled up with copies of its last image, whose features are dropped.

    Args:
        encoder: Keras model, or callable from images `(batch, height, width, 3)` in [0, 1] to a dict with
            `"features"` or to features `(batch, feature_dim)`.
        image_size: int. Side of the square images that the encoder sees. None takes the encoder's own
            `image_size`. Defaults to `None`.
        batch_size: int. Defaults to `256`.
        crop_ratio: float in (0, 1]. None takes 1.0 (the whole picture) up to 64 pixels and 0.875 above.
            Defaults to `None`.
    """

    def __init__(
        self,
        encoder: Callable,
        *,
        image_size: int | None = None,
        batch_size: int = 256,
        crop_ratio: float | None = None,
    ) -> None:
        image_size = getattr(encoder, "image_size", None) if image_size is None else image_size
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(
                f"`image_size` must be a positive int. Received: image_size={image_size}"
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        if crop_ratio is not None and not 0.0 < crop_ratio <= 1.0:
            raise ValueError(f"`crop_ratio` must be in (0, 1]. Received: crop_ratio={crop_ratio}")
        self.encoder, self.image_size, self.batch_size = encoder, image_size, batch_size
        self.crop_ratio = default_crop_ratio(image_size) if crop_ratio is None else crop_ratio
        self._features = tf.function(self._features_of_batch)

    def __call__(
        self,
        source: Any,
        *,
        indices: np.ndarray | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the features of a source's images, in order.

        Args:
            source: Source, or array `(samples, height, width, 3)`, uint8 or float in [0, 1].
            indices: int array. Which images, in which order. None takes all. Defaults to `None`.
            limit: int. At most so many of them, the first ones. Defaults to `None`.
            progress: callable `(done, total)`, called after each batch. Defaults to `None`.

        Returns:
            tuple of features, float32 `(samples, feature_dim)`, and labels of the images really shown, int32
            `(samples,)`, or None without labels.
        """
        source = _ArrayReader(source) if hasattr(source, "shape") else source
        indices = np.arange(source.num_samples) if indices is None else np.asarray(indices)
        indices = indices[:limit].astype(np.int64)
        if not len(indices):
            raise ValueError(
                f"At least one image was expected. Received: {source.num_samples} images, limit={limit}"
            )
        features, shown = [], []
        for images, aspect, ids in self._batches(source, indices):
            features.append(self.of_batch(images, aspect))
            shown.append(ids)
            if progress is not None:
                progress(sum(map(len, shown)), len(indices))
        labels = source.labels
        if labels is not None:
            labels = np.asarray(labels)[np.concatenate(shown)].astype(np.int32)
        return np.concatenate(features), labels

    def of_batch(self, images: np.ndarray, aspect: np.ndarray) -> np.ndarray:
        """Returns the features of at most `batch_size` images as a source's `read_batch` gives them.

        Args:
            images: `(batch, height, width, 3)`, uint8 or float in [0, 1], at least one.
            aspect: float32 `(batch,)`. How the shape of each picture was changed.

        Returns:
            float32 `(batch, feature_dim)`.
        """
        count = len(images)
        rows = np.minimum(np.arange(self.batch_size), count - 1)
        return self._features(tf.constant(images[rows]), tf.constant(aspect[rows])).numpy()[:count]

    def _features_of_batch(self, images: tf.Tensor, aspect: tf.Tensor) -> tf.Tensor:
        images = views.center_crop(images, aspect, size=self.image_size, crop_ratio=self.crop_ratio)
        outputs = encoder_outputs(self.encoder, tf.cast(images, tf.float32))
        return tf.cast(outputs["features"], tf.float32)

    def _batches(self, source: Any, indices: np.ndarray) -> Iterator[tuple]:
        """Yields (images, aspect, ids); the next batch is read while the encoder works on this one."""
        size = self.batch_size
        blocks = [indices[start : start + size] for start in range(0, len(indices), size)]
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(source.read_batch, blocks[0])
            for block in blocks[1:]:
                ready, waiting = waiting.result(), reader.submit(source.read_batch, block)
                yield ready
            yield waiting.result()


class _ArrayReader:
    """An array of images as a source without labels; floats stay floats."""

    labels = None

    def __init__(self, images: np.ndarray) -> None:
        if len(images.shape) != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"Images must be (samples, height, width, 3). Received: shape={tuple(images.shape)}"
            )
        self.images = np.asarray(images)
        self.num_samples = len(self.images)

    def read_batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.images[indices], np.ones(len(indices), np.float32), indices


def extract_features(
    encoder: Callable,
    source: Any,
    *,
    image_size: int | None = None,
    batch_size: int = 256,
    crop_ratio: float | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the features of a source's images; see `FeatureExtractor`, which is better for repeated use.

    Args:
        encoder: Keras model, or callable from images in [0, 1] to features.
        source: Source, or array `(samples, height, width, 3)`, uint8 or float in [0, 1].
        image_size: int. None takes the encoder's own. Defaults to `None`.
        batch_size: int. Defaults to `256`.
        crop_ratio: float in (0, 1]. None takes 1.0 up to 64 pixels and 0.875 above. Defaults to `None`.
        limit: int. Only the first so many images. Defaults to `None`.
        progress: callable `(done, total)`, called after each batch. Defaults to `None`.

    Returns:
        tuple of features, float32 `(samples, feature_dim)`, and labels, int32 `(samples,)`, or None.
    """
    extractor = FeatureExtractor(
        encoder,
        image_size=image_size,
        batch_size=min(batch_size, limit or batch_size),
        crop_ratio=crop_ratio,
    )
    return extractor(source, limit=limit, progress=progress)


def probe_features(
    encoder: keras.Model,
    images: tf.Tensor,
    *,
    last_blocks: int = 4,
    with_mean_patches: bool = False,
) -> tf.Tensor:
    """Returns the features with which the linear numbers of DINO, iBOT and DINOv2 were published.

    The class tokens of the last blocks, each after the final norm, first block first, then the mean of the last
    block's patches. DINO's and iBOT's small networks: 4 blocks; their base and large ones: 1 block and the mean.
    (DINO's own linear heads of base networks expect class token and mean channel by channel in turn.) A Swin has no
    class token: the means of its blocks' maps take its place, 4 of them in iBOT.

    Args:
        encoder: ViT with a class token, or Swin.
        images: float `(batch, height, width, 3)` in [0, 1].
        last_blocks: int in [1, depth]. Defaults to `4`.
        with_mean_patches: bool. Not for a Swin, which has them already. Defaults to `False`.

    Returns:
        `(batch, width * (last_blocks + with_mean_patches))` in at least float32; of a Swin `(batch, sum of the widths
        of the last blocks)`.

    Raises:
        ValueError: if the encoder has no class token and is no Swin, or has fewer blocks.

    Reference code: facebookresearch/dino `eval_linear.py`; facebookresearch/dinov2 `eval/linear.py`; bytedance/ibot
    `evaluation/eval_linear.py` and `run.sh`.
    """
    _check_probe(encoder, last_blocks, with_mean_patches)
    outputs = encoder(images, training=False, output="layers")
    layers = outputs["layers"][-last_blocks:]
    wide = tf.float64 if layers[0].dtype == tf.float64 else tf.float32
    if isinstance(encoder, Swin):
        return tf.concat([mean_of_map(tf.cast(layer, wide)) for layer in layers], axis=1)
    parts = [layer[:, 0] for layer in layers]
    if with_mean_patches:
        parts.append(tf.reduce_mean(tf.cast(outputs["tokens"], wide), 1))
    return tf.concat([tf.cast(part, wide) for part in parts], axis=1)


def _check_probe(encoder: keras.Model, last_blocks: int, with_mean_patches: bool) -> None:
    """Refuses what `probe_features` cannot read."""
    swin = isinstance(encoder, Swin)
    if not swin and (not isinstance(encoder, ViT) or encoder.class_token is None):
        raise ValueError(
            f"Expected a `ViT` with a class token or a `Swin`. Received: {type(encoder).__name__}"
        )
    depth = sum(map(len, encoder.stages)) if swin else len(encoder.blocks)
    if not 1 <= last_blocks <= depth:
        raise ValueError(
            f"`last_blocks` must be in [1, {depth}]. Received: last_blocks={last_blocks}"
        )
    if swin and with_mean_patches:
        raise ValueError(
            "Expected with_mean_patches=False for a `Swin`, whose blocks give means. Received: True"
        )
