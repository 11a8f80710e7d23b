"""A cache of smaller pictures shows the same records, labels and shapes, and never stale ones."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_ssl import cli
from keras_ssl.data import (
    DataError,
    FolderSource,
    PreparedSource,
    decode,
    open_source,
    prepare,
    prepared,
)

COUNT, BROKEN = 12, 7


def smooth(width, height, phase):
    """A picture that a smaller one can show: waves of 100 pixels and longer."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / 60 + phase), np.cos(y / 45 - phase), np.sin((x + y) / 80)]
    return Image.fromarray(np.uint8(127 + 100 * np.stack(waves, -1)))


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures in three classes: large ones, one turned by EXIF, a small PNG, one cut short."""
    root = tmp_path / "photos"
    for i in range(COUNT):
        path = root / f"class{i // 4}" / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if i == 5:
            exif[0x0112] = 6
        size = (400, 300) if i % 2 else (280, 420)
        if i == 3:
            smooth(90, 60, i).save(path.with_suffix(".png"))
        else:
            smooth(*size, i).save(path, quality=92, exif=exif)
    path = root / "class1" / f"{BROKEN:02d}.jpg"
    path.write_bytes(path.read_bytes()[:3000])
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(prepared, "_PER_SHARD", 5)


def test_cache_shows_the_same_records(folder, tmp_path):
    before = FolderSource(folder, view_size=48)
    assert prepare(before, tmp_path / "cache", size=128) == COUNT
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 3
    after = open_source(tmp_path / "cache", view_size=48, quarantine=tmp_path / "q.jsonl")
    assert isinstance(after, PreparedSource) and after.num_samples == COUNT
    assert after.canvas == before.canvas == (96, 96)
    assert after.class_names == before.class_names == ("class0", "class1", "class2")
    assert PreparedSource(tmp_path / "cache").canvas == FolderSource(folder).canvas  # larger ones
    np.testing.assert_array_equal(after.labels, before.labels)
    positions = np.arange(COUNT) + 1000
    images, aspect, shown = before.read_batch(np.arange(COUNT), positions)
    smaller, new_aspect, new_shown = after.read_batch(np.arange(COUNT), positions)
    np.testing.assert_array_equal(new_shown, shown)  # the same one stands in for the broken one
    assert shown[BROKEN] != BROKEN and after.num_broken == before.num_broken == 1
    np.testing.assert_allclose(new_aspect, aspect, rtol=0.01)  # whole pixels of the copies
    error = np.abs(smaller.astype(float) - images).mean((1, 2, 3))
    assert error.max() < 3, error
    (entry,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert entry["path"].endswith("000001.tar[class1/07.jpg]") and "truncated" in entry["error"]


def test_copies_are_upright_jpegs_and_small_pictures_are_left_alone(folder, tmp_path):
    source = FolderSource(folder)
    prepare(source, tmp_path / "cache", size=128)
    cache = PreparedSource(tmp_path / "cache")
    sizes = [decode.read_header(cache.record(i)) for i in (0, 1, 5)]
    # 280x420 -> 128x192; 400x300 -> 171x128; the latter turned by a quarter
    assert sizes == [((128, 192), "JPEG"), ((171, 128), "JPEG"), ((128, 171), "JPEG")]
    assert Image.open(io.BytesIO(cache.record(5))).getexif().get(0x0112) is None
    for i in (3, BROKEN):
        assert cache.record(i) == source.record(i)


def test_folder_uses_its_cache_and_says_so(folder, tmp_path):
    plain = open_source(folder, view_size=48)
    assert isinstance(plain, FolderSource) and "cache" not in plain.describe()
    prepare(plain, folder / prepared.CACHE_NAME, size=128, quality=80)
    found = open_source(folder, view_size=48, quarantine=tmp_path / "q.jsonl")
    assert isinstance(found, PreparedSource)
    place = folder / prepared.CACHE_NAME
    assert found.describe().endswith(
        f"resized to 96x96 (prepared: 128 pixels, quality 80, in {place})"
    )
    assert found.fingerprint() != plain.fingerprint()
    assert found.record_name(BROKEN) == str(folder / "class1" / "07.jpg")
    assert found.fingerprint() == open_source(place).fingerprint()


def test_cache_elsewhere_is_found_through_a_note(folder, tmp_path):
    prepare(FolderSource(folder), tmp_path / "cache", size=128)
    assert prepared.point_to(folder, tmp_path / "cache")
    assert isinstance(open_source(folder, view_size=48), PreparedSource)
    (tmp_path / "cache").rename(tmp_path / "moved")
    line = open_source(folder, view_size=48).describe()
    assert line.endswith("is not used: there is none; run `keras-ssl prepare` again")


@pytest.mark.parametrize("change", ["more", "other", "part", "canvas"])
def test_cache_that_does_not_fit_is_not_used(folder, change):
    place = folder / prepared.CACHE_NAME
    prepare(FolderSource(folder), place, size=128)
    view = 48
    if change == "more":
        smooth(300, 300, 0).save(folder / "class0" / "00a.jpg")
    elif change == "other":
        smooth(300, 300, 0).save(folder / "class0" / "00.jpg")
    elif change == "part":
        (place / "000001.tar").unlink()
    else:
        view = 96
    source = open_source(folder, view_size=view)
    assert isinstance(source, FolderSource)
    reason = {
        "more": "the pictures have changed since; run",
        "other": "the pictures have changed since; run",
        "part": "it is not complete; run `keras-ssl prepare` again, it goes on",
        "canvas": "its 128 pixels are fewer than the canvas's 192; prepare another one with --size 192",
    }
    assert f"; its cache in {place} is not used: {reason[change]}" in source.describe()
    if change == "part":
        with pytest.raises(DataError, match="complete cache .* but found a part of one: run"):
            open_source(place)


def test_changed_pictures_are_prepared_anew(folder, tmp_path):
    cache = tmp_path / "cache"
    prepare(FolderSource(folder), cache, size=128)
    open_source(cache).read_batch([0])
    (folder / "class0" / "00.jpg").unlink()
    assert prepare(FolderSource(folder), cache, size=128) == COUNT - 1
    new = open_source(cache, canvas=96)
    assert new.num_samples == COUNT - 1
    want = FolderSource(folder, canvas=96).read_batch([0, 10])[0].astype(float)
    assert np.abs(new.read_batch([0, 10])[0] - want).mean() < 3
    np.testing.assert_array_equal(new.labels, FolderSource(folder).labels)


def test_prepare_goes_on_where_it_was_stopped(folder, tmp_path):
    def stop(done, total):
        if done == 8:
            raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        prepare(FolderSource(folder), cache, size=128, progress=stop)
    assert [path.name for path in cache.iterdir() if path.suffix == ".tar"] == ["000000.tar"]
    calls = []
    assert prepare(FolderSource(folder), cache, size=128, progress=lambda *n: calls.append(n)) == 7
    assert calls == [(done, COUNT) for done in range(6, COUNT + 1)]
    whole = tmp_path / "whole"
    prepare(FolderSource(folder), whole, size=128, num_threads=1)
    for name in ("000000.tar", "000001.tar", "000002.tar", "labels.npy", "prepared.json"):
        assert (cache / name).read_bytes() == (whole / name).read_bytes()
    assert prepare(FolderSource(folder), cache, size=128) == 0


def test_wrong_settings_and_folders_are_refused(folder, tmp_path):
    source, cache = FolderSource(folder), tmp_path / "cache"
    prepare(source, cache, size=128)
    with pytest.raises(DataError, match="Expected --size 128 --quality 90, .* found --size 64"):
        prepare(source, cache, size=64)
    with pytest.raises(DataError, match="a cache, at .*photos, but found other files there"):
        prepare(source, folder)
    with pytest.raises(ValueError, match=r"Received: size=0, quality=90"):
        prepare(source, cache, size=0)


def test_command_says_what_it_did_and_what_to_do_next(folder, capsys):
    assert cli.main(["prepare", str(folder), "--size", "128", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    place = folder / prepared.CACHE_NAME
    assert "data      12 images in 3 classes, " in out
    assert "12 of 12 images, " in out and " images/s, 0s left" in out
    assert f"12 pictures written; {place} holds 12 (0 MB)." in out
    assert f"--data {folder} uses it up to a canvas of 128 pixels." in out
    assert isinstance(open_source(folder, view_size=64), PreparedSource)
    assert cli.main(["prepare", str(folder), "--size", "128"]) == 0
    assert "0 pictures written" in capsys.readouterr().out


def command(env, *arguments):
    start = [sys.executable, "-m", "keras_ssl.cli", "prepare", *map(str, arguments)]
    return subprocess.Popen(
        start, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_command_killed_half_way_goes_on(tmp_path, subprocess_env):
    """A real process is killed after its first file; the same command writes the others only."""
    root, cache = tmp_path / "photos", tmp_path / "cache"
    root.mkdir()
    picture = io.BytesIO()
    smooth(1600, 1200, 0).save(picture, "JPEG")
    for i in range(1200):
        (root / f"{i:04d}.jpg").write_bytes(picture.getvalue())
    first = command(subprocess_env, root, "--to", cache, "--size", 256)
    deadline = time.monotonic() + 300
    while not (cache / "000000.tar").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    there = {path.name: path.stat().st_mtime_ns for path in cache.glob("0*.tar")}
    assert 1 <= len(there) < 3 and first.returncode == -signal.SIGKILL
    second = command(subprocess_env, root, "--to", cache, "--size", 256)
    out, error = second.communicate()
    assert second.returncode == 0, error
    written = 1200 - 500 * len(there)
    assert f"{written:,} pictures written; {cache} holds 1,200" in out
    assert (
        "images/s" in out
        and " left" in out
        and f"--data {root} uses it up to a canvas of 256 pixels." in out
    )
    assert all((cache / name).stat().st_mtime_ns == mtime for name, mtime in there.items())
    assert isinstance(open_source(root, view_size=96), PreparedSource)
    assert Path(root / prepared.CACHE_NAME).read_text() == f"{cache}\n"
