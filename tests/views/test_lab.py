"""Lab and the bins of colorization against slow NumPy written from the formulas, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.views import ops


def slow_lab(pixel: np.ndarray) -> list[float]:
    """One sRGB pixel to Lab, D65: IEC 61966-2-1, then CIE 1976 with the usual four-digit constants."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in pixel)
    x = (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


def colors() -> np.ndarray:
    """Noise, dark noise where the curves are straight, and pure colors."""
    random = np.random.default_rng(0)
    pure = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3)
    noise = np.concatenate([random.random((200, 3)), 0.05 * random.random((40, 3)), pure])
    return noise.reshape(2, 4, -1, 3)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-4), ("float64", 1e-9)])
def test_lab_against_the_formula(dtype, tolerance):
    """Largest error of any of L, a, b, whose range is about 200."""
    expected = np.apply_along_axis(slow_lab, -1, colors())
    result = ops.rgb_to_lab(colors().astype(dtype))
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=tolerance)


def test_lab_of_known_colors():
    pixels = np.array([[[[1, 1, 1], [1, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]]]], np.float32)
    lab = ops.rgb_to_lab(pixels)[0, 0]
    np.testing.assert_allclose(lab[0], [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(lab[1], [53.24, 80.09, 67.20], atol=0.01)
    np.testing.assert_allclose(lab[2], [0, 0, 0], atol=0.01)
    np.testing.assert_allclose(lab[3, 1:], [0, 0], atol=0.01)


def test_lab_and_back():
    images = colors()
    np.testing.assert_allclose(ops.lab_to_rgb(ops.rgb_to_lab(images)), images, atol=1e-7)
    single = ops.lab_to_rgb(ops.rgb_to_lab(images.astype(np.float32)))
    assert np.abs(single - images).mean() < 1e-6
    shown = ops.lab_to_rgb(np.array([[[[50.0, 110.0, 110.0]]]]))  # no sRGB color: clipped
    assert shown.numpy().min() == 0.0 and shown.numpy().max() <= 1.0


def test_split_brain_halves():
    light, color = ops.split_lab(colors())
    lab = ops.rgb_to_lab(colors())
    assert light.shape[-1] == 1 and color.shape[-1] == 2
    np.testing.assert_allclose(light[..., 0], lab[..., 0] / 50 - 1)
    np.testing.assert_allclose(color, lab[..., 1:] / 110)


@pytest.mark.parametrize("step, count", [(10, 226), (20, 57)])
def test_bins_are_the_grid_points_that_srgb_has(step, count):
    """Slow: of every grid point and every tenth lightness, converted to sRGB and back."""
    ticks = np.arange(-110, 111, step) if step == 10 else np.arange(-100, 101, step)
    a, b, lightness = np.meshgrid(ticks, ticks, np.arange(0, 100.5, 0.5), indexing="ij")
    lab = np.stack([lightness, a, b], axis=-1).astype(np.float64)
    back = ops.rgb_to_lab(ops.lab_to_rgb(lab.reshape(1, -1, lab.shape[2], 3)))
    kept = (np.abs(back[0] - lab.reshape(-1, lab.shape[2], 3)) < 1e-2).all(-1).any(-1)
    bins = ops.color_bins(step)
    assert bins.shape == (count, 2)
    expected = lab.reshape(-1, lab.shape[2], 3)[kept, 0, 1:]
    np.testing.assert_array_equal(bins, expected)
    assert [0.0, 0.0] in bins.tolist()
    with pytest.raises(ValueError, match="Received: step=0"):
        ops.color_bins(0)


def test_soft_bins_by_hand():
    """Two bins at distances 0 and 10: exp(0) and exp(-100 / 50), that is 0.8808 and 0.1192."""
    bins = np.array([[0, 0], [10, 0], [50, 50]], np.float32)
    index, weights = ops.soft_bins(tf.constant([[0.0, 0.0], [10.0, 0.0]]), bins, neighbors=2)
    np.testing.assert_array_equal(index, [[0, 1], [1, 0]])
    np.testing.assert_allclose(weights, [[0.880797, 0.119203]] * 2, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_soft_bins_against_a_slow_loop(dtype):
    color = tf.cast(np.random.default_rng(1).uniform(-80, 80, (3, 5, 2)), dtype)
    exact = tf.cast(color, tf.float64).numpy()
    bins = ops.color_bins(10)
    index, weights = ops.soft_bins(color, bins)
    assert index.dtype == tf.int32 and weights.dtype == tf.float32
    for place in np.ndindex(3, 5):
        far = np.sqrt(((exact[place] - bins) ** 2).sum(-1))
        np.testing.assert_allclose(far[index[place]], np.sort(far)[:10], atol=1e-4)
        share = np.exp(-(np.sort(far)[:10] ** 2) / 50)
        np.testing.assert_allclose(weights[place], share / share.sum(), atol=1e-5)
        assert ops.nearest_bin(color, bins)[place] == far.argmin()


def test_bin_weights_by_hand():
    """Prior (0.9, 0.1), g = 0.5: 1/0.7 and 1/0.3, scaled so that 0.9 w0 + 0.1 w1 = 1."""
    np.testing.assert_allclose(ops.bin_weights([9, 1]), [0.882353, 2.058824], atol=1e-6)
    weights = ops.bin_weights([0.5, 0.0, 0.5])
    np.testing.assert_allclose(weights, [1, 1, 1])  # a bin that never occurs counts as the rarest
    np.testing.assert_allclose(ops.bin_weights([0.7, 0.3], uniform=1.0), [1, 1])
    with pytest.raises(ValueError, match="Received: prior.shape"):
        ops.bin_weights([0.0, 0.0])


def test_annealed_mean_by_hand():
    """(0.8, 0.2) at T = 0.38 is (0.9746, 0.0254); towards 0 it is the likeliest bin, at 1 the mean."""
    bins = np.array([[0, 0], [100, 50]], np.float32)
    logits = np.log([0.8, 0.2])
    np.testing.assert_allclose(ops.decode_bins(logits, bins), [2.54, 1.27], atol=0.01)
    np.testing.assert_allclose(ops.decode_bins(logits, bins, temperature=1.0), [20, 10], atol=1e-5)
    np.testing.assert_allclose(ops.decode_bins(logits, bins, temperature=0.01), [0, 0], atol=1e-5)


def test_lightness_bins_by_hand():
    bins = ops.lightness_bins(tf.constant([0.0, 0.99, 1.0, 57.3, 99.9, 100.0, -0.1]))
    np.testing.assert_array_equal(bins, [0, 0, 1, 57, 99, 99, 0])
    np.testing.assert_array_equal(ops.lightness_bins(tf.constant([49.0, 51.0]), 2), [0, 1])
