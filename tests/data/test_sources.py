"""Folders, arrays, .npz files and digits as sources, and what is said when they cannot be used."""

import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from keras_ssl.data import ArraySource, DataError, FolderSource, batches, open_source
from keras_ssl.data import encoded as encoded_file


def save(path, size=(16, 16), color=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def pixels(count=6, shape=(4, 5, 3)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


# Folders


def test_class_folders_give_labels_in_sorted_order(tmp_path):
    for name in (
        "cat/2.PNG",
        "cat/10.jpeg",
        "ant/b.bmp",
        "bee/x.gif",
        "bee/.hidden.png",
        "ant/n.txt",
    ):
        if name.endswith("txt"):
            (tmp_path / name).write_text("notes")
        else:
            save(tmp_path / name)
    save(tmp_path / ".thumbnails" / "t.png")
    source = open_source(tmp_path)
    assert source.files == ["ant/b.bmp", "bee/x.gif", "cat/10.jpeg", "cat/2.PNG"]
    assert source.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(source.labels, [0, 1, 2, 2])
    assert source.labels.dtype == np.int32 and source.has_labels
    assert source.describe() == "4 images in 3 classes, 16x16 BMP/GIF/JPEG/PNG"


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["a/1.png", "b/2.png", "3.png"], id="one lies at the top"),
        pytest.param(["a/1.png", "b/c/2.png"], id="one lies deeper"),
        pytest.param(["a/1.png", "a/2.png"], id="a single sub-folder"),
        pytest.param(["1.png", "2.png"], id="flat"),
    ],
)
def test_other_layouts_have_no_labels(tmp_path, names):
    for name in names:
        save(tmp_path / name)
    source = FolderSource(tmp_path)
    assert source.labels is None and source.class_names is None and not source.has_labels
    assert "without labels" in source.describe()
    assert source.num_samples == len(names)


def test_links_are_followed_and_loops_end(tmp_path):
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "data" / "2.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "linked")
    os.symlink(tmp_path / "elsewhere" / "1.png", tmp_path / "data" / "file.png")
    os.symlink(tmp_path / "data", tmp_path / "data" / "loop")
    assert FolderSource(tmp_path / "data").files == ["2.png", "file.png", "linked/1.png"]


def test_start_opens_at_most_64_files(tmp_path, monkeypatch):
    for i in range(150):
        save(tmp_path / f"{i:03d}.png", (8, 8))
    opened = []
    original = encoded_file.decode.read_header
    monkeypatch.setattr(
        encoded_file.decode, "read_header", lambda path: opened.append(path.name) or original(path)
    )
    monkeypatch.setattr(FolderSource, "record", None)  # no file is read whole
    source = FolderSource(tmp_path)
    assert len(opened) == 64 and min(opened) == "000.png" and max(opened) > "140.png"
    source.fingerprint(), source.describe()
    assert len(opened) == 64


@pytest.mark.parametrize(
    ("sizes", "view_size", "canvas", "expected"),
    [
        ([(50, 40)] * 3, 32, None, (40, 50)),  # one size within 2 x view: kept
        ([(50, 40)] * 3, 24, "auto", (48, 48)),  # too large to be kept: 2 x 24
        ([(100, 40), (90, 30), (70, 85)], 64, None, (80, 80)),  # longer 100, 90, 85: 90 -> 80
        ([(100, 40), (90, 30), (70, 85)], 32, None, (64, 64)),
        ([(10, 12), (9, 9), (20, 8)], 32, None, (32, 32)),  # never below 32
        ([(500, 375), (375, 500), (640, 480)], None, None, (448, 448)),  # view 224
        ([(100, 40), (90, 30), (70, 85)], 32, (24, 36), (24, 36)),
        ([(100, 40), (90, 30), (70, 85)], 32, 20, (20, 20)),
    ],
)
def test_canvas(tmp_path, sizes, view_size, canvas, expected):
    for i, size in enumerate(sizes):
        save(tmp_path / f"{i}.png", size)
    source = open_source(tmp_path, view_size=view_size, canvas=canvas)
    assert source.canvas == expected
    images, aspect, shown = source.read_batch(range(len(sizes)))
    assert images.shape == (len(sizes), *expected, 3) and images.dtype == np.uint8
    assert aspect.dtype == np.float32 and shown.dtype == np.int64
    wanted = [w / h * expected[0] / expected[1] for w, h in sizes]
    np.testing.assert_allclose(aspect, wanted, rtol=1e-6)
    np.testing.assert_array_equal(images[:, 3, 3], [[10, 20, 30]] * len(sizes))


def test_describe_names_sizes_formats_and_canvas(tmp_path):
    save(tmp_path / "a" / "1.png", (100, 40))
    save(tmp_path / "a" / "2.png", (30, 60))
    save(tmp_path / "b" / "3.jpg", (200, 90))
    line = FolderSource(tmp_path, view_size=32).describe()
    assert line == "3 images in 2 classes, 30x60 to 200x90 PNG/JPEG, resized to 64x64"


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_fingerprint_notices_changes(tmp_path, change):
    for i in range(3):
        save(tmp_path / f"{i}.bmp", (8, 8))
    before = FolderSource(tmp_path).fingerprint()
    assert len(before) == 16 and FolderSource(tmp_path).fingerprint() == before
    if change == "content":
        save(tmp_path / "1.bmp", (9, 9))
    elif change == "name":
        (tmp_path / "1.bmp").rename(tmp_path / "1b.bmp")
    else:
        save(tmp_path / "3.bmp", (8, 8))
    assert FolderSource(tmp_path).fingerprint() != before


def test_number_of_threads_changes_nothing(tmp_path):
    for i in range(20):
        save(tmp_path / f"{i}.png", (16, 16), (i, 2 * i, 3 * i))
    one, four = (FolderSource(tmp_path, num_threads=n).read_batch(range(20)) for n in (1, 4))
    for a, b in zip(one, four, strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_empty_and_wrong_folders_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match=r"Expected a folder of images at .*nowhere, but found nothing"
    ):
        open_source(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"Expected files ending in \.jpg.*but found no files: check"
    ):
        open_source(tmp_path)
    (tmp_path / "a.tiff").write_bytes(b"x")
    (tmp_path / "b.TIFF").write_bytes(b"x")
    (tmp_path / "c").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found 2 x \.tiff, 1 x no extension: check the path"):
        open_source(tmp_path)
    (tmp_path / "all.tar").write_bytes(b"x")
    with pytest.raises(DataError, match="unpack the archive first"):
        open_source(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(DataError, match="denied: check its perm"):
        patch.setattr(
            os, "scandir", lambda folder: (_ for _ in ()).throw(PermissionError("denied"))
        )
        open_source(tmp_path)
    with pytest.raises(DataError, match="but found a file there"):
        open_source(tmp_path / "a.tiff")
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of those sampled could be read .*broken.jpg"):
        open_source(tmp_path)
    assert issubclass(DataError, ValueError)


def test_gives_up_when_no_record_of_a_tiny_source_is_readable(tmp_path, monkeypatch):
    save(tmp_path / "1.png")
    source = FolderSource(tmp_path)

    def fail(data, canvas):
        raise OSError("disk on fire")

    monkeypatch.setattr(encoded_file.decode, "decode", fail)
    with pytest.raises(DataError, match="found none in 64 tries at position 7"):
        source.read_batch([0], np.array([7]))


# Arrays and .npz files


def test_array_keeps_pixels_and_size():
    images = pixels()
    source = open_source(images)
    got, aspect, shown = source.read_batch([4, 1, 1])
    np.testing.assert_array_equal(got, images[[4, 1, 1]])
    np.testing.assert_array_equal(aspect, np.ones(3, np.float32))
    np.testing.assert_array_equal(shown, [4, 1, 1])
    assert source.labels is None and source.canvas == (4, 5) and len(source) == 6
    assert source.describe() == "6 images without labels, 5x4 array"


def test_array_labels_and_canvas():
    source = open_source((pixels(), np.array([[2], [0], [1], [1], [2], [0]])), canvas=(8, 20))
    np.testing.assert_array_equal(source.labels, [2, 0, 1, 1, 2, 0])
    assert source.labels.dtype == np.int32 and source.class_names == ("0", "1", "2")
    images, aspect, _ = source.read_batch([0])
    assert images.shape == (1, 8, 20, 3)
    assert aspect[0] == pytest.approx((5 / 4) / (20 / 8))
    named = ArraySource(pixels(3), ["dog", "ape", "dog"])
    np.testing.assert_array_equal(named.labels, [1, 0, 1])
    assert named.class_names == ("ape", "dog")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_gray_arrays_become_rgb(shape):
    images = pixels(3, shape)
    got = ArraySource(images).read_batch([2, 0])[0]
    np.testing.assert_array_equal(got, np.repeat(images[[2, 0]].reshape(2, 4, 5, 1), 3, -1))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (pixels().astype(np.float32), "uint8 array .* but found float32"),
        (pixels()[0], None),  # (4, 5, 3) reads as four gray images
        (pixels().transpose(0, 3, 1, 2), r"found uint8 \(6, 3, 4, 5\)"),
        (pixels()[:0], r"found uint8 \(0, 4, 5, 3\)"),
        ((pixels(), np.zeros(5, int)), r"label for each of 6 images, but found int64 \(5,\)"),
        ((pixels(), np.zeros(6)), "found float64"),
        ((pixels(), None, None), "tuple of 3"),
    ],
)
def test_wrong_arrays_say_what_was_found(spec, match):
    if match is None:
        assert open_source(spec).num_samples == 4
        return
    with pytest.raises(DataError, match=match):
        open_source(spec)


@pytest.mark.parametrize(
    ("keys", "suffix"),
    [
        (("images", "labels"), ""),
        (("x", "y"), ""),
        (("x_train", "y_train"), ""),
        (("train_images", "train_labels"), ""),
        (("x_test", "y_test"), ":test"),
        (("images_test", "labels_test"), ":test"),
        (("val_images", "val_labels"), ":val"),
    ],
)
def test_npz_keys_and_splits(tmp_path, keys, suffix):
    labels = np.array([0, 1, 2, 0, 1, 2])
    decoy = {"x_train": pixels(2), "y_train": labels[:2]} if suffix else {"x_test": pixels(2)}
    names = np.array(["a", "b", "c"])
    np.savez(
        tmp_path / "set.npz",
        **decoy,
        class_names=names,
        **dict(zip(keys, (pixels(), labels), strict=True)),
    )
    source = open_source(f"{tmp_path}/set.npz{suffix}")
    np.testing.assert_array_equal(source.read_batch(range(6))[0], pixels())
    np.testing.assert_array_equal(source.labels, labels)
    assert source.class_names == ("a", "b", "c")


def test_npz_without_labels_and_wrong_files(tmp_path):
    np.savez(tmp_path / "set.npz", x=pixels())
    assert open_source(tmp_path / "set.npz").labels is None
    with pytest.raises(DataError, match="under one of x_test, images_test, .* found the keys x: "):
        open_source(f"{tmp_path}/set.npz:test")
    with pytest.raises(DataError, match="Expected an .npz file at .*none.npz, but found nothing"):
        open_source(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not a zip file")
    with pytest.raises(DataError, match="could not be read .*numpy.savez"):
        open_source(tmp_path / "text.npz")
    np.savez(tmp_path / "floats.npz", x=pixels().astype(float))
    with pytest.raises(DataError, match="floats.npz: Expected images as a uint8 array"):
        open_source(tmp_path / "floats.npz")


def test_array_fingerprint_notices_changes():
    images = pixels()
    before = ArraySource(images).fingerprint()
    assert ArraySource(images.copy()).fingerprint() == before
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    prints = {
        before,
        ArraySource(changed).fingerprint(),
        ArraySource(images, [0] * 6).fingerprint(),
    }
    assert len(prints) == 3


# Digits


def test_digits_are_scikit_learns():
    source, data = open_source("digits"), sklearn_digits()
    assert (source.num_samples, source.canvas) == (1797, (32, 32))
    np.testing.assert_array_equal(source.labels, data.target)
    images = source.read_batch([0, 7])[0]
    assert (images[..., 0] == images[..., 2]).all()
    # Pixel 4k of the enlarged row mixes 8x8 pixels k-1 and k in the shares 3/8 and 5/8.
    row = data.images[7, 0] * 255 / 16
    np.testing.assert_allclose(images[1, 0, 16, 0], 0.375 * row[3] + 0.625 * row[4], atol=1.5)


def test_digits_splits_are_disjoint_and_complete():
    train, test = open_source("digits:train"), open_source("digits:test")
    assert (train.num_samples, test.num_samples) == (1438, 359)
    target = sklearn_digits().target
    np.testing.assert_array_equal(test.labels, target[4::5])
    np.testing.assert_array_equal(train.labels, np.delete(target, np.s_[4::5]))
    assert (
        len({open_source(s).fingerprint() for s in ("digits", "digits:train", "digits:test")}) == 3
    )
    with pytest.raises(DataError, match="but found digits:val"):
        open_source("digits:val")


# All


def test_batches_go_through_everything_in_order():
    source = ArraySource(pixels(7))
    got = list(batches(source, 3))
    assert [len(images) for images, _, _ in got] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([images for images, _, _ in got]), pixels(7))
    some = list(batches(source, 2, indices=[5, 0, 3]))
    np.testing.assert_array_equal(np.concatenate([shown for _, _, shown in some]), [5, 0, 3])


def test_source_is_passed_through_and_nonsense_is_refused():
    source = ArraySource(pixels())
    assert open_source(source) is source
    with pytest.raises(ValueError, match="Received: spec=7"):
        open_source(7)
    with pytest.raises(ValueError, match=r"`canvas` must be .* Received: canvas=0"):
        open_source(pixels(), canvas=0)
