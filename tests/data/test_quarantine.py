"""Broken records are replaced, counted, listed once, and stop a run when they are too many."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_ssl.data import DataError, FolderSource, Quarantine, SampleStream
from keras_ssl.data.quarantine import stand_in

GOOD, BAD = 57, 3


def color(index):
    return index * 4 % 256, 255 - index * 4 % 256, 77


@pytest.fixture
def folder(tmp_path):
    """60 files in three classes; record i of one color; three are broken in three ways."""
    root = tmp_path / "photos"
    for i in range(GOOD + BAD):
        name = root / f"class{i // 20}" / f"{i:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), color(i)).save(name)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg = root / "class0" / "05.jpg"
    Image.fromarray(noise).save(jpeg, quality=95)
    (root / "class0" / "05.png").unlink()
    jpeg.write_bytes(jpeg.read_bytes()[:2000])
    (root / "class1" / "25.png").write_text("not an image\n" * 100)
    (root / "class2" / "45.png").write_bytes(b"")
    return root


BROKEN = (5, 25, 45)


def listed(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_broken_records_are_replaced_by_what_is_shown(folder, tmp_path):
    source = FolderSource(folder, quarantine=tmp_path / "quarantine.jsonl")
    positions = np.arange(1000, 1060)
    images, _, shown = source.read_batch(np.arange(60), positions)
    good = [i for i in range(60) if i not in BROKEN]
    np.testing.assert_array_equal(shown[good], good)
    for index in BROKEN:
        assert shown[index] not in BROKEN
        expected = [stand_in(1000 + index, attempt, 60) for attempt in range(1, 9)]
        assert shown[index] == next(i for i in expected if i not in BROKEN)
    for row, record in enumerate(shown):
        assert tuple(images[row, 8, 8]) == color(int(record))
    assert source.num_broken == BAD
    np.testing.assert_array_equal(source.labels_of(shown), shown // 20)


def test_list_has_each_record_once_over_restarts(folder, tmp_path):
    path = tmp_path / "run" / "quarantine.jsonl"
    for _ in range(2):
        source = FolderSource(folder, quarantine=path)
        for _ in range(2):
            source.read_batch(np.arange(60))
        assert source.num_broken == BAD
    entries = listed(path)
    assert sorted(entry["sample_id"] for entry in entries) == list(BROKEN)
    names = {entry["sample_id"]: entry["path"] for entry in entries}
    assert names[25] == str(folder / "class1" / "25.png")
    assert "truncated" in next(e["error"] for e in entries if e["sample_id"] == 5)


def test_list_cut_short_by_a_kill_is_continued(folder, tmp_path):
    path = tmp_path / "quarantine.jsonl"
    FolderSource(folder, quarantine=path).read_batch(np.arange(60))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])
    FolderSource(folder, quarantine=path).read_batch(np.arange(60))
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert sorted(json.loads(line)["sample_id"] for line in whole) == list(BROKEN)


def test_repaired_file_is_used_by_the_next_process(folder, tmp_path):
    path = tmp_path / "quarantine.jsonl"
    FolderSource(folder, quarantine=path).read_batch(np.arange(60))
    Image.new("RGB", (16, 16), color(25)).save(folder / "class1" / "25.png")
    source = FolderSource(folder, quarantine=path)
    assert source.read_batch(np.arange(60))[2][25] == 25
    assert source.num_broken == BAD - 1


def test_stand_in_depends_on_position_and_attempt_only(folder):
    """Another process, order or batch shows the same; other positions show others."""
    whole = FolderSource(folder).read_batch(np.arange(60), np.arange(60))[2]
    source = FolderSource(folder)
    for index in reversed(range(60)):
        assert source.read_batch([index], np.array([index]))[2][0] == whole[index]
    picks = {stand_in(position, 1, 60) for position in range(300)}
    assert len(picks) > 50 and min(picks) >= 0 and max(picks) < 60
    assert stand_in(5, 1, 60) != stand_in(5, 2, 60)
    assert stand_in(123, 1, 10**9) == 976_394_050  # recorded; a change would break restarts


def test_without_a_file_nothing_is_written(folder, tmp_path):
    source = FolderSource(folder)
    source.read_batch(np.arange(60))
    assert source.num_broken == BAD
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(("broken", "stops"), [(6, False), (7, True), (8, True)])
def test_more_than_a_tenth_of_a_small_folder_stops(tmp_path, broken, stops):
    for i in range(60):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i:02d}.png")
    for i in range(broken):
        (tmp_path / f"{i * 7:02d}.png").write_bytes(b"")
    source = FolderSource(tmp_path)
    if not stops:
        source.read_batch(np.arange(60))
        assert source.num_broken == broken and source.error is None
        return
    with pytest.raises(DataError, match=r"at most 10 % broken images \(6 of 60\), but found 7"):
        source.read_batch(np.arange(60))
    assert isinstance(source.error, DataError) and "repair or remove" in str(source.error)


def test_one_broken_record_of_five_is_allowed(tmp_path):
    for i in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"")
    assert FolderSource(tmp_path).read_batch(np.arange(5))[2][3] != 3


def test_large_broken_source_stops_early_in_shuffled_order_only():
    """A tenth of a million is far away, but 30 of the first 60 is no chance any more."""

    def fill(broken, read, shuffled):
        quarantine = Quarantine(1_000_000)
        quarantine.count_reads(read, shuffled)
        for i in range(broken):
            quarantine.add(i, str(i), OSError("cut"), shuffled)
        return quarantine.num_broken

    with pytest.raises(DataError, match="among the first 60 read"):
        fill(30, 60, True)
    assert fill(30, 60, False) == 30
    assert fill(19, 20, True) == 19  # too few to tell
    assert fill(110, 1000, True) == 110  # 11 % of 1,000 may be chance: 100 + 4 x 9.5 = 138
    with pytest.raises(DataError, match="but found 138 among"):
        fill(140, 1000, True)


def test_error_inside_the_pipeline_is_kept_for_people(tmp_path):
    """TensorFlow wraps the exception; `source.error` still has the one sentence."""
    import tensorflow as tf

    for i in range(40):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i:02d}.png")
    for i in range(0, 40, 2):
        (tmp_path / f"{i:02d}.png").write_bytes(b"")
    source = FolderSource(tmp_path)
    with pytest.raises(tf.errors.OpError, match="at most 10 % broken"):
        list(SampleStream(source, 8).dataset(num_steps=5))
    assert isinstance(source.error, DataError)


def test_stream_shows_labels_of_the_stand_in_and_restarts_alike(folder):
    def run(start, steps):
        stream = SampleStream(FolderSource(folder), 20, seed=1)
        return [
            {key: value.numpy() for key, value in batch.items() if key != "inputs"}
            for batch in stream.dataset(start_step=start, num_steps=steps)
        ]

    whole, later = run(0, 6), run(4, 2)
    for batch in whole:
        assert not set(batch["sample_id"]) & set(BROKEN)
        np.testing.assert_array_equal(batch["labels"], batch["sample_id"] // 20)
    for a, b in zip(whole[4:], later, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
