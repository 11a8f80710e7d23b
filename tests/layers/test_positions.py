"""Position tables: MAE's values by hand, and PyTorch's bicubic resize by a slow loop."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import bicubic_matrix, interpolate_positions, sincos_positions


def test_sincos_by_hand():
    """D = 8, 2 x 2 grid: frequencies 1 and 0.01; token 1 is (row 0, column 1), token 2 (row 1, column 0)."""
    table = sincos_positions(8, (2, 2))
    one, zero = [0.8415, 0.0100, 0.5403, 1.0000], [0.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(table, [zero + zero, one + zero, zero + one, one + one], atol=5e-5)


@pytest.mark.parametrize("row_first", [False, True])
def test_sincos_equals_the_loop(row_first):
    dim, rows, columns = 12, 3, 5
    table = sincos_positions(dim, (rows, columns), class_token=True, row_first=row_first)
    assert table.shape == (16, dim) and not table[0].any()
    for row in range(rows):
        for column in range(columns):
            halves = []
            for place in (row, column) if row_first else (column, row):
                angles = [place / 10000 ** (i / (dim / 4)) for i in range(dim // 4)]
                halves += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            np.testing.assert_allclose(table[1 + row * columns + column], halves, atol=1e-12)


def cubic(distance):
    """Keys's kernel with a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_resize(image, target, offset):
    """Sixteen taps for each output pixel, indices clamped at the border."""
    height, width = image.shape[:2]
    out = np.zeros((*target, image.shape[2]))
    for i in range(target[0]):
        for j in range(target[1]):
            y = (i + 0.5) / ((target[0] + offset) / height) - 0.5
            x = (j + 0.5) / ((target[1] + offset) / width) - 0.5
            for m in range(math.floor(y) - 1, math.floor(y) + 3):
                for n in range(math.floor(x) - 1, math.floor(x) + 3):
                    pixel = image[min(max(m, 0), height - 1), min(max(n, 0), width - 1)]
                    out[i, j] += cubic(y - m) * cubic(x - n) * pixel
    return out


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize(
    ("source", "target"), [((4, 4), (7, 7)), ((7, 7), (3, 3)), ((5, 3), (4, 9)), ((2, 2), (1, 6))]
)
def test_interpolation_equals_the_loop(source, target, offset):
    table = np.random.default_rng(0).normal(size=(1, source[0] * source[1], 3))
    got = interpolate_positions(tf.constant(table), source, target, offset=offset)
    expected = slow_resize(table.reshape(*source, 3), target, offset).reshape(1, -1, 3)
    assert got.shape == (1, target[0] * target[1], 3)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_one_axis_by_hand():
    """2 -> 4 reads at -0.25, 0.25, 0.75, 1.25; at 0.25 the taps weigh -0.1055, 0.8789, 0.2617, -0.0352."""
    matrix = bicubic_matrix(2, 4)
    w = [-0.10546875, 0.87890625, 0.26171875, -0.03515625]
    np.testing.assert_allclose(matrix[1], [w[0] + w[1], w[2] + w[3]], atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-12)


def slow_antialiased(values, target):
    """PyTorch's antialiased bicubic of one axis: a = -0.5, the kernel stretched, what is left rescaled."""
    source, out = len(values), []
    stretch = max(source / target, 1.0)
    for i in range(target):
        center, total, weights = (i + 0.5) * source / target, 0.0, 0.0
        for j in range(source):
            d = abs(j + 0.5 - center) / stretch
            if d < 1:
                weight = 1.5 * d**3 - 2.5 * d**2 + 1
            else:
                weight = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0
            total, weights = total + weight * values[j], weights + weight
        out.append(total / weights)
    return out


@pytest.mark.parametrize(("source", "target"), [(37, 16), (14, 24), (5, 5), (3, 1), (2, 7)])
def test_antialiased_equals_the_loop(source, target):
    values = np.random.default_rng(0).normal(size=source)
    matrix = bicubic_matrix(source, target, antialias=True)
    np.testing.assert_allclose(matrix @ values, slow_antialiased(values, target), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-12)


def test_equal_grid_is_untouched_and_offset_shifts():
    table = tf.random.normal((1, 6, 2))
    assert interpolate_positions(table, (2, 3), [2, 3], offset=0.1) is table
    np.testing.assert_allclose(bicubic_matrix(3, 3), np.eye(3), atol=1e-12)
    assert np.abs(bicubic_matrix(14, 6) - bicubic_matrix(14, 6, offset=0.1)).max() > 0.1


def test_gradient_reaches_the_table():
    table = tf.random.normal((1, 9, 2))
    with tf.GradientTape() as tape:
        tape.watch(table)
        total = tf.reduce_sum(interpolate_positions(table, (3, 3), (5, 5)))
    gradient = tape.gradient(total, table)
    np.testing.assert_allclose(tf.reduce_sum(gradient), 50.0, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="dim=6"):
        sincos_positions(6, (2, 2))
    with pytest.raises(ValueError, match=r"3 \* 3 positions.*\(1, 10, 2\)"):
        interpolate_positions(tf.zeros((1, 10, 2)), (3, 3), (4, 4))
