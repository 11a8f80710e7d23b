"""The neighbor sheet pixel by pixel, and PNG files."""

import numpy as np
import pytest
from PIL import Image

from keras_ssl.evaluation import neighbors


def solid(values):
    return np.stack([np.full((4, 4, 3), v, np.uint8) for v in values])


def angles(*degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)


def tiles(sheet):
    """Gray levels of the tiles of a sheet with 4-pixel tiles: query, then neighbors."""
    columns = [0, *range(4 + 6, sheet.shape[1], 6)]
    return [[int(sheet[top, left, 0]) for left in columns] for top in range(0, len(sheet), 6)]


def test_each_row_shows_query_and_neighbors_by_cosine():
    """At 0, 10, 90, 95, 200 degrees the order of neighbors is read off the circle."""
    images, features = solid([10, 20, 30, 40, 50]), angles(0, 10, 90, 95, 200)
    sheet = neighbors.neighbor_sheet(images, features, num_queries=5, k=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (5 * 6 - 2, 4 + 6 + 3 * 6 - 2, 3)
    assert tiles(sheet) == [
        [10, 20, 30, 40],
        [20, 10, 30, 40],
        [30, 40, 20, 10],
        [40, 30, 20, 10],
        [50, 40, 30, 10],
    ]
    assert (sheet[4:6] == 255).all()


def test_a_duplicate_is_a_neighbor_and_the_query_is_not():
    images, features = solid([1, 2, 3]), angles(0, 0, 0)
    sheet = neighbors.neighbor_sheet(images, features, num_queries=3, k=9)
    assert tiles(sheet) == [[1, 2, 3], [2, 1, 3], [3, 1, 2]]


def test_queries_are_spread_and_floats_are_accepted():
    features = angles(*range(0, 80, 8))
    sheet = neighbors.neighbor_sheet(solid(range(10)) / 255.0, features, num_queries=2, k=1)
    assert tiles(sheet) == [[0, 1], [5, 4]] or tiles(sheet) == [[0, 1], [5, 6]]


def test_png_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    neighbors.write_png(tmp_path / "sheet.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), image)


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"One image .* features.shape=\(2, 2\)"):
        neighbors.neighbor_sheet(solid([1, 2, 3]), angles(0, 1))
    with pytest.raises(ValueError, match="dtype=float64"):
        neighbors.write_png(tmp_path / "x.png", np.zeros((2, 2, 3)))
