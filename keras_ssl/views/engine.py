"""Turns a batch of images and their keys into groups of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from keras_ssl.views import boxes, color, compiled, crop, photometric, pretext, spatial
from keras_ssl.views.numbers import Numbers, any_of, jitter_rates
from keras_ssl.views.planes import as_float, from_planes, to_planes
from keras_ssl.views.recipes import ViewConfig, ViewRecipe, get
from keras_ssl.views.tiling import make_tiles

_KERNELS = ("auto", "host", "device")


class ViewEngine:
    """Makes the views of a recipe, batched and without state.

    Every random number depends on the sample's key and the view's name alone: fold_in(keys,
    "group/index"), then a name for each use. So a sample gets the same views whatever batch or
    replica it is in, eagerly, in a graph, inside `tf.data` and under XLA (to float rounding). Crops, color
    mixes and blur are matrix products: GPUs and TPUs take them in their own default precision.

    Args:
        recipe: str or ViewRecipe.
        dtype: float type of the views. Defaults to the Keras float type at the time of the call.
            Colors are computed in float64 for float64 and in float32 for all others.
        kernel: `"host"` computes only the images that an operation changes, with dynamic shapes (no
            XLA around it); from 64 pixels on, XLA compiles what follows the crop for the CPU, about
            1.5 s at the first call. `"device"` computes all and selects. `"auto"` takes `"device"`
            while XLA or a TPU program is traced or where an accelerator is present, else `"host"`.
            Inside `tf.data` on a machine with an accelerator, ask for `"host"`. Defaults to `"auto"`.

    Example:

    ```python
    engine = ViewEngine("simclr_cifar")
    keys = keras_ssl.random.sample_keys(seed=0, position=tf.range(8, dtype=tf.int64))
    views = engine(images, keys)  # uint8 (8, 32, 32, 3)
    views["global"].shape  # (2, 8, 32, 32, 3)
    ```
    """

    def __init__(
        self, recipe: str | ViewRecipe, dtype: str | None = None, kernel: str = "auto"
    ) -> None:
        if kernel not in _KERNELS:
            raise ValueError(f"`kernel` must be one of {_KERNELS}. Received: kernel={kernel!r}")
        if dtype is not None and not tf.as_dtype(dtype).is_floating:
            raise ValueError(f"`dtype` must be a float type. Received: dtype={dtype!r}")
        self.recipe = get(recipe)
        self.dtype = dtype
        self.kernel = kernel

    @tf.autograph.experimental.do_not_convert  # no Python branch depends on a tensor; traces 4x faster
    def __call__(
        self, images: tf.Tensor, keys: tf.Tensor, aspect: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns the views.

        Args:
            images: `(batch, height, width, 3)`, uint8 or float in [0, 1]; height and width static.
            keys: uint32 `(batch, 2)` of `random.sample_keys`.
            aspect: float `(batch,)`. The original's width / height divided by the canvas's. Defaults
                to 1 (the canvas kept the picture's shape).

        Returns:
            dict from group name to `(V, batch, size, size, 3)` in [0, 1], and `"keys"`.
        """
        images, keys = tf.convert_to_tensor(images), tf.convert_to_tensor(keys)
        _check_inputs(images, keys)
        sparse, wide = self._sparse(), self._wide()
        # Pictures that are resampled one by one are never copied as floats.
        kept = images.dtype == tf.uint8 and wide == tf.float32
        pictures = images if kept else as_float(images, wide)

        def make(group: str, configs: tuple[ViewConfig, ...]) -> tf.Tensor:
            if configs[0].tiles is None:
                return _make(pictures, keys, aspect, group, configs, sparse)
            return make_tiles(_make, pictures, keys, aspect, group, configs[0], sparse)

        return {**self._groups(make), "keys": keys}

    @tf.autograph.experimental.do_not_convert
    def finish(self, crops: Mapping[str, tf.Tensor], keys: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the views of crops that were cut already, as `ExactCrops` has them cut.

        Args:
            crops: dict from group name to uint8 `(V, batch, size, size, 3)`, not mirrored.
            keys: uint32 `(batch, 2)` of `random.sample_keys`.

        Returns:
            As a call does.
        """

        def make(group: str, configs: tuple[ViewConfig, ...]) -> tf.Tensor:
            numbers = Numbers(keys, group, len(configs), self._wide())
            size = configs[0].size
            stack = to_planes(
                as_float(tf.reshape(crops[group], [-1, size, size, 3]), numbers.dtype)
            )
            if any_of(configs, "flip_rate"):
                stack = spatial.flip(stack, numbers.chosen(configs, "flip"), planes=True)
            return _treat(stack, numbers, configs, self._sparse())

        return {**self._groups(make), "keys": keys}

    def _groups(self, make: Callable) -> dict[str, tf.Tensor]:
        """Returns what `make` gives for each group, its views turned as they are to be."""
        views = {}
        for group, configs in self.recipe.groups.items():
            tied = group in self.recipe.tied
            made = make(group, configs[:1] if tied else configs)
            turned = [
                spatial.rotate(made[0 if tied else index], config.rotation)
                for index, config in enumerate(configs)
            ]
            rotates = any_of(configs, "rotation")
            views[group] = tf.cast(tf.stack(turned) if rotates else made, self._dtype())
        return views

    def _dtype(self) -> tf.DType:
        return tf.as_dtype(self.dtype or keras.config.floatx())

    def _wide(self) -> tf.DType:
        return tf.float64 if self._dtype() == tf.float64 else tf.float32

    def _sparse(self) -> bool:
        return self.kernel == "host" or (self.kernel == "auto" and not _on_device())


def _on_device() -> bool:
    """Whether shapes must be static (XLA, TPU) or an accelerator will run the operations."""
    if not tf.executing_eagerly():
        graph = tf.compat.v1.get_default_graph()
        if control_flow_util.GraphOrParentsInXlaContext(graph):
            return True
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def _check_inputs(images: tf.Tensor, keys: tf.Tensor) -> None:
    if images.shape.rank != 4 or images.shape[-1] != 3 or None in images.shape[1:3].as_list():
        raise ValueError(
            "`images` must be (batch, height, width, 3) with static height and width. "
            f"Received: images.shape={images.shape}"
        )
    if keys.dtype != tf.uint32 or keys.shape.rank != 2 or keys.shape[-1] != 2:
        raise ValueError(
            "`keys` must be uint32 (batch, 2), see `random.sample_keys`. "
            f"Received: keys.dtype={keys.dtype.name}, keys.shape={keys.shape}"
        )


def _make(
    pictures: tf.Tensor,
    keys: tf.Tensor,
    aspect: tf.Tensor | None,
    group: str,
    configs: tuple[ViewConfig, ...],
    sparse: bool,
) -> tf.Tensor:
    """Returns the unrotated views of one group, (V, batch, size, size, 3), of uint8 or float pictures."""
    dtype = tf.float32 if pictures.dtype == tf.uint8 else pictures.dtype
    numbers = Numbers(keys, group, len(configs), dtype)
    return _treat(_cut(pictures, aspect, numbers, configs, sparse), numbers, configs, sparse)


def _treat(
    stack: tf.Tensor, numbers: Numbers, configs: tuple[ViewConfig, ...], sparse: bool
) -> tf.Tensor:
    """Takes crops (V * batch, 3, size, size) through all that follows; returns (V, batch, size, size, 3)."""
    size = configs[0].size
    if sparse and compiled.applies(configs):
        made = _treat_one_by_one(stack, numbers, configs)
    else:
        made = from_planes(_treat_batch(stack, numbers, configs, sparse))
    return tf.reshape(made, [len(configs), numbers.batch, size, size, 3])


def _treat_batch(
    stack: tf.Tensor, numbers: Numbers, configs: tuple[ViewConfig, ...], sparse: bool
) -> tf.Tensor:
    """Takes all views through one step after the other."""
    settings = {"sparse": sparse, "planes": True}
    if configs[0].grayscale_first:
        stack = _gray(stack, numbers, configs)
    if any(jitter_rates(configs)):
        stack = color.color_jitter(stack, *numbers.jitter(configs), **settings)
    if any_of(configs, "photometric_rate"):
        chosen = numbers.chosen(configs, "photometric")
        stack = photometric.photometric(stack, numbers.keys, chosen, **settings)
    if not configs[0].grayscale_first:
        stack = _gray(stack, numbers, configs)
    if any_of(configs, "projection_rate"):
        stack = pretext.project_colors(stack, numbers.chosen(configs, "projection"), planes=True)
    if any_of(configs, "blur_rate"):
        sigma, max_sigma = numbers.blur_sigma(configs)
        chosen = numbers.chosen(configs, "blur")
        stack = spatial.gaussian_blur(stack, sigma, chosen, max_sigma=max_sigma, **settings)
    if any_of(configs, "solarize_rate"):
        stack = color.solarize(stack, numbers.chosen(configs, "solarize"), **settings)
    return stack


def _gray(stack: tf.Tensor, numbers: Numbers, configs: tuple[ViewConfig, ...]) -> tf.Tensor:
    if not any_of(configs, "grayscale_rate"):
        return stack
    return color.grayscale(stack, numbers.chosen(configs, "grayscale"), planes=True)


def _treat_one_by_one(
    stack: tf.Tensor, numbers: Numbers, configs: tuple[ViewConfig, ...]
) -> tf.Tensor:
    """Takes one view after the other through all of its steps: `_treat_batch` with its loops exchanged.

    Returns (V * batch, size, size, 3).
    """
    steps = []
    factors = tf.zeros([tf.shape(stack)[0], 4], numbers.dtype)
    sigma, max_sigma = numbers.blur_sigma(configs)
    if any(jitter_rates(configs)):
        factors, order, chosen = numbers.jitter(configs)
        steps.append(tf.where(chosen[:, None], tf.cast(order, tf.int32), compiled.NOTHING))
    for name, kind in (
        ("grayscale", compiled.GRAYSCALE),
        ("blur", compiled.BLUR),
        ("solarize", compiled.SOLARIZE),
    ):
        if any_of(configs, f"{name}_rate"):
            chosen = numbers.chosen(configs, name)
            steps.append(tf.where(chosen, kind, compiled.NOTHING)[:, None])
    if not steps:
        return from_planes(stack)
    radius = spatial.blur_radius(configs[0].size, max_sigma)
    return compiled.run_steps(stack, tf.concat(steps, axis=1), factors, sigma, radius)


def _cut(
    pictures: tf.Tensor,
    aspect: tf.Tensor | None,
    numbers: Numbers,
    configs: tuple[ViewConfig, ...],
    sparse: bool,
) -> tf.Tensor:
    """Crops, mirrors and resizes: (V * batch, 3, size, size)."""
    height, width = pictures.shape[1:3]
    first, count = configs[0], len(configs)
    flip = None
    if any_of(configs, "flip_rate"):
        flip = numbers.chosen(configs, "flip")
    settings = {"interpolation": first.interpolation, "sparse": sparse}
    if first.pad_crop:
        planes = as_float(to_planes(pictures))
        if aspect is not None or (height, width) != (first.size, first.size):
            square = boxes.center_boxes(
                numbers.batch, height, width, aspect=aspect, dtype=numbers.dtype
            )
            planes = crop.cut(pictures, square, first.size, **settings)
        corner = numbers.named("crop")
        return spatial.pad_and_crop(planes, corner, first.pad_crop, flip=flip, planes=True)
    stretched = None if aspect is None else tf.tile(aspect, [count])
    if first.short_side:
        cuts = boxes.random_squares(
            numbers.named("crop"),
            height,
            width,
            size=first.size,
            short_side=first.short_side,
            aspect=stretched,
            dtype=numbers.dtype,
        )
    elif first.scale is None:
        cuts = boxes.full_boxes(count * numbers.batch, height, width, numbers.dtype)
    else:
        scales = tuple(numbers.rows([config.scale[end] for config in configs]) for end in (0, 1))
        cuts = boxes.random_boxes(
            numbers.named("crop"),
            height,
            width,
            scale=scales,
            ratio=first.ratio,
            aspect=stretched,
            dtype=numbers.dtype,
        )
    return crop.cut(pictures, cuts, first.size, flip=flip, **settings)
