"""What follows the crop, for large views on a CPU: one view at a time, compiled by XLA.

TensorFlow's CPU kernels write every intermediate result of a chain of pixel operations to memory, and a
batch of large views does not fit the cache. Here each view runs through its own list of steps before the
next one is begun. XLA fuses a step to one pass, and steps that were not drawn for the view cost nothing.
"""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.views import color, spatial
from keras_ssl.views.config import ViewConfig
from keras_ssl.views.planes import from_planes

MIN_SIZE = 64  # pixels; smaller views stay in the cache as batches, and need no compilation

# Numbers of the steps; the first four are those of `color`.
GRAYSCALE, BLUR, SOLARIZE, NOTHING = range(color.HUE + 1, color.HUE + 5)
_MISSING = ("photometric_rate", "projection_rate", "grayscale_first")


def applies(configs: tuple[ViewConfig, ...]) -> bool:
    """Whether views are large enough for this, and take no step that is missing here or in another place."""
    missing = any(getattr(config, step) for config in configs for step in _MISSING)
    return configs[0].size >= MIN_SIZE and not missing


@tf.function(jit_compile=True, autograph=False)
def run_steps(
    planes: tf.Tensor, steps: tf.Tensor, factors: tf.Tensor, sigma: tf.Tensor, radius: int
) -> tf.Tensor:
    """Applies to each view its own steps, in its own order.

    Args:
        planes: `(batch, 3, height, width)` in [0, 1].
        steps: int32 `(batch, slots)`. BRIGHTNESS, CONTRAST, SATURATION and HUE of `color`, and
            GRAYSCALE, BLUR, SOLARIZE or NOTHING, from first to last.
        factors: `(batch, 4)`. As for `color.color_jitter`.
        sigma: `(batch,)`. Width of the blur in pixels.
        radius: int. Pixels that the blur reads to each side.

    Returns:
        `(batch, height, width, 3)`; each view is turned while it is in the cache.
    """
    shape = planes.shape[1:]

    def view(numbers: tuple[tf.Tensor, ...]) -> tf.Tensor:
        pixels, kinds, own, width = (number[None] for number in numbers)

        def step(slot: tf.Tensor, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            branches = [
                lambda: color.brightness(pixels, own[:, color.BRIGHTNESS], planes=True),
                lambda: color.contrast(pixels, own[:, color.CONTRAST], planes=True),
                lambda: color.saturation(pixels, own[:, color.SATURATION], planes=True),
                lambda: color.hue(pixels, own[:, color.HUE], planes=True),
                lambda: color.grayscale(pixels, [True], planes=True),
                lambda: spatial.blur_by_taps(pixels, width, radius),
                lambda: color.solarize(pixels, [True], planes=True),
                lambda: pixels,
            ]
            return slot + 1, tf.switch_case(kinds[0, slot], branches)

        slots = steps.shape[1]
        start = (tf.constant(0), tf.ensure_shape(pixels, [1, *shape]))
        return from_planes(tf.while_loop(lambda slot, _: slot < slots, step, start)[1][0])

    spec = tf.TensorSpec([*shape[1:], shape[0]], planes.dtype)
    return tf.map_fn(view, (planes, steps, factors, sigma), fn_output_signature=spec)
