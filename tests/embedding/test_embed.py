"""One file of features of a folder: order, what is left out, resuming after a kill, formats."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl.embedding import embed as embed_file
from keras_ssl.embedding import embed_folder, read_features

SMALL = {"image_size": 16, "batch_size": 2, "save_every": 4}
NAMES = [f"{'cats' if i < 11 else 'dogs'}/{i:02d}.png" for i in range(20)]


def expected(picture, seeds):
    """Quarter means of the pictures, which are 24 x 24: shrinking to 16 with a triangle kernel keeps them nearly."""
    images = np.stack([picture(seed) for seed in seeds]) / 255.0
    return images.reshape(len(seeds), 2, 12, 2, 12, 3).mean((2, 4)).reshape(len(seeds), 12)


def test_order_paths_labels_and_what_is_left_out(folder, encoder, picture, tmp_path):
    seen = []
    out = tmp_path / "features.npz"
    done = embed_folder(encoder, folder, out, progress=lambda *a: seen.append(a), **SMALL)
    found = read_features(out)
    assert found.paths.tolist() == NAMES
    assert found.ids.tolist() == [0, 1, 2, 3, 4, 5, *range(7, 21)]  # the broken one was number 6
    assert found.labels.tolist() == [0] * 11 + [1] * 9 and found.labels.dtype == np.int32
    assert found.meta["class_names"] == ["cats", "dogs"]
    np.testing.assert_allclose(found.features, expected(picture, range(20)), atol=0.02)
    assert (done.count, done.broken, done.computed) == (20, 1, 21)
    (line,) = done.broken_path.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["path"], entry["sample_id"]) == ("cats/05x.jpg", 6)
    assert "UnidentifiedImageError" in entry["error"]
    assert [a[0] for a in seen] == [*range(2, 21, 2), 21] and seen[-1] == (21, 21, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.npz", "features.npz.broken.jsonl", "pictures",
    ]  # fmt: skip


def test_kill_and_resume_give_the_same_bytes(folder, encoder, tmp_path, subprocess_env):
    whole, out = tmp_path / "whole.npz", tmp_path / "killed.npz"
    embed_folder(encoder, folder, whole, **SMALL)
    worker = Path(__file__).with_name("kill_worker.py")
    command = [sys.executable, str(worker), str(folder), str(out), "13"]
    code = subprocess.run(command, env=subprocess_env, capture_output=True).returncode
    assert code == -signal.SIGKILL and not out.exists()
    parts = tmp_path / "killed.npz.parts"
    assert len(list(parts.glob("[0-9]*.npz"))) == 3  # of images 0 to 11
    (parts / ".77-00000003.npz").write_bytes(b"torn")  # what a kill during a write leaves
    done = embed_folder(encoder, folder, out, **SMALL)
    assert done.computed == 9 and not parts.exists()
    assert out.read_bytes() == whole.read_bytes()
    assert (tmp_path / "killed.npz.broken.jsonl").read_bytes() == (
        tmp_path / "whole.npz.broken.jsonl"
    ).read_bytes()


def test_a_kill_between_the_file_and_the_removal_of_its_parts(
    folder, encoder, tmp_path, monkeypatch
):
    def killed(path):
        raise KeyboardInterrupt

    out = tmp_path / "features.npz"
    with monkeypatch.context() as patch:
        patch.setattr(embed_file, "remove_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            embed_folder(encoder, folder, out, **SMALL)
    written = out.read_bytes()
    done = embed_folder(encoder, folder, out, **SMALL)
    assert (done.count, done.broken, done.computed) == (20, 1, 0)
    assert out.read_bytes() == written and not (tmp_path / "features.npz.parts").exists()


@pytest.mark.parametrize("begun", [True, False])
def test_other_settings_and_other_images_are_refused(folder, encoder, tmp_path, begun):
    out = tmp_path / "features.npz"

    def stop(done, total, broken):
        if begun and done > 8:
            raise KeyboardInterrupt

    try:
        embed_folder(encoder, folder, out, progress=stop, **SMALL)
    except KeyboardInterrupt:
        assert not out.exists()
    where = "the parts in" if begun else "features.npz"
    with pytest.raises(ValueError, match=f"Expected normalized as in .*{where}.* False. Received"):
        embed_folder(encoder, folder, out, normalize=True, **SMALL)
    (folder / "dogs" / "99.png").write_bytes((folder / "dogs" / "19.png").read_bytes())
    with pytest.raises(ValueError, match="Expected the same images as in"):
        embed_folder(encoder, folder, out, **SMALL)


def test_other_weights_are_refused(folder, tmp_path):
    import keras

    def network(value):
        inputs = keras.Input((16, 16, 3))
        x = keras.layers.GlobalAveragePooling2D()(inputs)
        start = keras.initializers.Constant(value)
        return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer=start)(x))

    out = tmp_path / "features.npz"
    embed_folder(network(0.5), folder, out, **SMALL)
    with pytest.raises(ValueError, match="Expected the same weights of the encoder as in"):
        embed_folder(network(0.6), folder, out, **SMALL)


def test_gray_and_wide_pictures_and_no_classes(encoder, picture, tmp_path):
    """A gray picture has three equal channels; of a wide one the middle counts; one folder is no class."""
    root = tmp_path / "flat"
    root.mkdir()
    Image.fromarray(picture(1)).convert("L").save(root / "gray.png")
    wide = np.zeros((24, 72, 3), np.uint8)
    wide[:, 24:48] = picture(2)
    Image.fromarray(wide).save(root / "wide.png")
    embed_folder(encoder, root, tmp_path / "f.npz", crop_ratio=1.0, **SMALL)
    found = read_features(tmp_path / "f.npz")
    assert found.labels is None and found.meta["class_names"] is None
    gray, middle = found.features.reshape(2, 4, 3)
    assert np.ptp(gray, axis=1).max() == 0.0
    np.testing.assert_allclose(middle.ravel(), expected(picture, [2])[0], atol=0.05)


def test_normalized_and_float16(folder, encoder, tmp_path):
    embed_folder(encoder, folder, tmp_path / "a.npz", **SMALL)
    embed_folder(encoder, folder, tmp_path / "b.npz", normalize=True, dtype="float16", **SMALL)
    a, b = read_features(tmp_path / "a.npz"), read_features(tmp_path / "b.npz")
    unit = a.features / np.linalg.norm(a.features, axis=1, keepdims=True)
    assert b.features.dtype == np.float16
    np.testing.assert_array_equal(b.features, unit.astype(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_holds_the_same(folder, encoder, tmp_path, dtype):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for name in ("f.npz", "f.parquet", "again.parquet"):
        embed_folder(encoder, folder, tmp_path / name, dtype=dtype, **SMALL)
    a, b = read_features(tmp_path / "f.npz"), read_features(tmp_path / "f.parquet")
    assert b.features.dtype == dtype
    for column in ("features", "paths", "ids", "labels"):
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column))
    assert a.meta == b.meta
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "id", "label", "features"]
    assert (tmp_path / "f.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_features_that_are_not_finite_are_left_out(folder, tmp_path):
    """The encoder divides by how bright an image is above its darkest pixel: a flat image gives 0 / 0."""
    Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(folder / "dogs" / "flat.png")

    def contrast(images):
        low, high = tf.reduce_min(images, (1, 2)), tf.reduce_max(images, (1, 2))
        return (tf.reduce_mean(images, (1, 2)) - low) / (high - low)

    done = embed_folder(contrast, folder, tmp_path / "f.npz", **SMALL)
    found = read_features(tmp_path / "f.npz")
    assert np.isfinite(found.features).all() and "dogs/flat.png" not in found.paths
    assert (done.count, done.broken) == (20, 2)
    assert "not finite" in done.broken_path.read_text().splitlines()[1]


def test_numbers_beyond_float16_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="within the range of float16, 65504"):
        embed_folder(
            lambda x: 1e6 + tf.reduce_mean(x, (1, 2)),
            folder,
            tmp_path / "f.npz",
            dtype="float16",
            **SMALL,
        )


def test_nothing_but_broken_pictures(encoder, picture, tmp_path):
    root = tmp_path / "broken"
    root.mkdir()
    Image.fromarray(picture(0)).save(root / "a.png")
    data = (root / "a.png").read_bytes()
    (root / "a.png").write_bytes(data[: len(data) // 2])  # the header is whole, the pixels are not
    with pytest.raises(ValueError, match="at least one image that can be read. Received: 1 broken"):
        embed_folder(encoder, root, tmp_path / "f.npz", **SMALL)


def test_arrays_and_their_labels(encoder, picture, tmp_path):
    images = np.stack([picture(i) for i in range(5)])
    np.savez(tmp_path / "data.npz", x_test=images, y_test=[3, 1, 0, 2, 2])
    embed_folder(encoder, f"{tmp_path}/data.npz:test", tmp_path / "f.npz", **SMALL)
    found = read_features(tmp_path / "f.npz")
    assert found.labels.tolist() == [3, 1, 0, 2, 2] and found.paths.tolist() == list("01234")
    np.testing.assert_allclose(found.features, expected(picture, range(5)), atol=0.02)


def test_a_file_of_another_kind(tmp_path, encoder):
    with pytest.raises(ValueError, match="ending in .npz or .parquet"):
        embed_folder(encoder, tmp_path, tmp_path / "f.csv", **SMALL)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="that `keras-ssl embed` wrote. Received: .*other.npz"):
        read_features(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="where there is none"):
        read_features(tmp_path / "none.npz")


def test_parquet_without_pyarrow(tmp_path, monkeypatch, encoder):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_ssl\[parquet\]'"):
        embed_folder(encoder, tmp_path, tmp_path / "f.parquet", **SMALL)


def test_the_digest_follows_the_settings(folder, encoder, tmp_path):
    for name, settings in (("a", {}), ("b", {}), ("c", {"normalize": True})):
        embed_folder(encoder, folder, tmp_path / f"{name}.npz", **settings, **SMALL)
    a, b, c = (read_features(tmp_path / f"{name}.npz").digest() for name in "abc")
    assert a == b != c
