"""Views cut from whole pictures as they are read."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import random, views
from keras_ssl.data import SampleStream, decode, open_source
from keras_ssl.views import crop

SEED = 3


def picture(index, width, height):
    """Smooth colors, so that a canvas of fewer pixels shows nearly the same."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    waves = np.stack([np.sin(x + index), np.cos(y - index), np.sin(x * y)], axis=-1)
    return ((waves + 1) * 127.5).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several shapes, one turned by its EXIF and one broken."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        image = Image.fromarray(picture(index, 90 + 17 * (index % 4), 80 + 23 * (index % 3)))
        image.save(folder / f"{index:02d}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(12, 120, 80)).save(folder / "12.jpg", exif=exif, quality=95)
    (folder / "13.png").write_bytes((folder / "00.png").read_bytes()[:200])
    return folder


def crops_of(**changes):
    recipe = views.customize(views.get("swav_cifar"), image_size=32, **changes)
    return recipe, views.ExactCrops(recipe, SEED)


def test_a_view_is_pillows_resize_of_its_box():
    image = picture(1, 70, 50)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    box = (11.0, 7.0, 60.0, 43.0)
    (bilinear, bicubic) = decode.cut(
        file.getvalue(), lambda size: [(box, 16, "bilinear"), (box, 24, "bicubic")]
    )
    tensor = tf.constant(image[None], tf.float32) / 255.0
    rows = tf.constant([[7.0, 11.0, 36.0, 49.0]])  # top, left, height, width
    for found, kind in ((bilinear, "bilinear"), (bicubic, "bicubic")):
        cut = crop.cut(tensor, rows, len(found), interpolation=kind)[0]
        expected = tf.transpose(cut, [1, 2, 0]).numpy() * 255.0
        assert np.abs(found - expected).max() < 1.01  # Pillow's 8-bit fixed point


def test_exif_turns_the_picture_before_it_is_cut(folder):
    data = (folder / "12.jpg").read_bytes()
    sizes = []
    (whole,) = decode.cut(
        data, lambda size: sizes.append(size) or [((0, 0, *size), 80, "bilinear")]
    )
    assert sizes == [(80, 120)]
    upright, _ = decode.decode(data, (80, 80))
    assert np.abs(whole.astype(int) - upright).mean() < 1.0


def test_the_stream_gives_the_parts_that_a_canvas_gives(folder):
    """On smooth pictures both ways show nearly the same; same records, labels and stand-ins."""
    recipe, cut = crops_of()
    engine = views.ViewEngine(recipe, kernel="host")
    stream = SampleStream(open_source(str(folder), canvas=128), 7, seed=1)

    def made(crops):
        return [
            (
                engine.finish(batch["crops"], random.sample_keys(SEED, batch["position"]))
                if crops
                else engine(
                    batch["inputs"]["image"],
                    random.sample_keys(SEED, batch["position"]),
                    batch["aspect"],
                ),
                batch["sample_id"].numpy(),
            )
            for batch in stream.dataset(num_steps=4, crops=crops)
        ]

    for (exact, shown), (plain, expected) in zip(made(cut), made(None), strict=True):
        np.testing.assert_array_equal(shown, expected)
        assert 13 not in shown  # broken
        for name in recipe.groups:
            assert exact[name].shape == plain[name].shape
            assert np.abs(exact[name] - plain[name]).mean() < 0.02


def test_any_cut_of_the_stream_gives_the_same_crops(folder):
    _, cut = crops_of()
    source = open_source(str(folder))
    whole = SampleStream(source, 4, seed=1)
    (third,) = whole.dataset(start_step=2, num_steps=1, crops=cut)
    halves = list(whole.dataset(start_step=2, num_steps=1, per_replica_batch=2, crops=cut))
    for name, crops in third["crops"].items():
        joined = tf.concat([half["crops"][name] for half in halves], axis=1)
        np.testing.assert_array_equal(crops, joined)
    *_, again = whole.dataset(num_steps=3, crops=cut)
    tf.nest.map_structure(np.testing.assert_array_equal, third, again)
