"""TFRecord, tar and Parquet files are read at random, record for record what was written."""

import io
import json
import os
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl.data import DataError, SampleStream, open_source, prepare
from keras_ssl.data import tar as tar_file
from keras_ssl.data import tfrecord as tfrecord_file

COUNT = 23
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (COUNT, 8, 12, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) * 7 % 3
SHARDS = (range(9), range(9, 10), range(10, COUNT))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [png(pixels) for pixels in PIXELS]
DAMAGED = 12  # the record that `damage=True` cuts to half


def pictures(damage):
    cut = PICTURES[DAMAGED][: len(PICTURES[DAMAGED]) // 2]
    return [cut if damage and i == DAMAGED else picture for i, picture in enumerate(PICTURES)]


def example(picture, label, image_key="image/encoded", label_key="image/class/label"):
    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    fields = {image_key: picture, "text": b"a bee", "height": 8} | (
        {} if label is None else {label_key: int(label)}
    )
    features = {key: feature(value) for key, value in fields.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)


def write_tfrecords(root, damage=False, split="train", **keys):
    made = [example(p, n, **keys) for p, n in zip(pictures(damage), LABELS, strict=True)]
    for number, rows in enumerate(SHARDS):
        name = f"{split}.tfrecord-{number:05d}-of-{len(SHARDS):05d}"
        write_records(root / name, [made[row] for row in rows])


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tars(root, damage=False, **how):
    root.mkdir(parents=True, exist_ok=True)
    made = pictures(damage)
    for number, rows in enumerate(SHARDS):
        with tarfile.open(root / f"{number:06d}.tar", "w", **how) as tar:
            for row in rows:
                if row % 2:  # before the picture or behind it
                    add(tar, f"{row:04d}.cls", b"%d\n" % LABELS[row])
                add(tar, f"{row:04d}.png", made[row])
                if not row % 2:
                    add(tar, f"{row:04d}.cls", b"%d" % LABELS[row])
                add(tar, f"{row:04d}.json", b"{}")


def write_parquet(root, damage=False, split="train"):
    root.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}
    made = pictures(damage)
    for number, rows in enumerate(SHARDS):
        table = pa.table(
            {
                "image": [{"bytes": made[row], "path": f"{row}.png"} for row in rows],
                "label": pa.array([LABELS[row] for row in rows], pa.int64()),
            }
        )
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(info)
        path = root / f"{split}-{number:05d}-of-{len(SHARDS):05d}.parquet"
        pq.write_table(table, path, row_group_size=4)


WRITERS = {"tfrecord": write_tfrecords, "tar": write_tars, "parquet": write_parquet}
KINDS = pytest.mark.parametrize("kind", list(WRITERS))


@KINDS
def test_any_order_gives_what_was_written(kind, tmp_path):
    WRITERS[kind](tmp_path / "set")
    (tmp_path / "set" / "README.md").write_text("notes")
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(COUNT), 2))
    for spec in (f"{kind}:{tmp_path}/set", f"{tmp_path}/set", f"{kind}:{tmp_path}/set/*0*"):
        source = open_source(spec, num_threads=4)
        assert source.num_samples == COUNT and source.has_labels
        images, aspect, shown = source.read_batch(order)
        np.testing.assert_array_equal(images, PIXELS[order])
        np.testing.assert_array_equal(shown, order)
        np.testing.assert_array_equal(aspect, np.ones(len(order), np.float32))
        np.testing.assert_array_equal(source.labels_of(order), LABELS[order])
        np.testing.assert_array_equal(source.labels, LABELS)
        assert source.labels.dtype == np.int32


@KINDS
def test_one_file_is_a_source_too(kind, tmp_path):
    WRITERS[kind](tmp_path)
    last = sorted(path for path in tmp_path.iterdir())[-1]
    source = open_source(last)
    np.testing.assert_array_equal(source.read_batch([12, 0])[0], PIXELS[[22, 10]])


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("tfrecord", "3 TFRecord files (image/encoded, image/class/label): 23 images with labels"),
        ("tar", "3 tar files: 23 images with labels"),
        ("parquet", "3 Parquet files: 23 images in 3 classes"),
    ],
)
def test_description(kind, line, tmp_path):
    WRITERS[kind](tmp_path)
    source = open_source(f"{kind}:{tmp_path}", canvas=32)
    assert source.describe() == f"{line}, 12x8 PNG, resized to 32x32"
    assert source.class_names == (("ant", "bee", "cat") if kind == "parquet" else ())


@KINDS
def test_broken_record_is_replaced_and_listed(kind, tmp_path):
    WRITERS[kind](tmp_path / "set", damage=True)
    source = open_source(f"{kind}:{tmp_path}/set", quarantine=tmp_path / "q.jsonl")
    images, _, shown = source.read_batch(np.arange(COUNT))
    assert [i for i in range(COUNT) if shown[i] != i] == [DAMAGED]
    np.testing.assert_array_equal(images, PIXELS[shown])
    (entry,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert entry["sample_id"] == DAMAGED
    where = {
        "tfrecord": "train.tfrecord-00002-of-00003[2]",
        "tar": "000002.tar[0012.png]",
        "parquet": "train-00002-of-00003.parquet[row group 0, row 2]",
    }
    assert entry["path"] == f"{tmp_path}/set/{where[kind]}"


@KINDS
def test_fingerprint_is_of_the_data_and_not_of_the_place(kind, tmp_path):
    for name in ("a", "b"):
        WRITERS[kind](tmp_path / name)
    WRITERS[kind](tmp_path / "c", damage=True)
    prints = [open_source(f"{kind}:{tmp_path / name}").fingerprint() for name in "abc"]
    assert prints[0] == prints[1] != prints[2] and len(prints[0]) == 16


@pytest.mark.parametrize("kind", ["tfrecord", "parquet"])
def test_folder_with_several_splits_is_its_train_split(kind, tmp_path):
    WRITERS[kind](tmp_path / "data", split="train")
    WRITERS[kind](tmp_path / "data", split="test")
    source = open_source(f"{kind}:{tmp_path}")
    assert source.num_samples == COUNT and " of train" in source.describe()
    assert open_source(f"{kind}:{tmp_path}/data/*").num_samples == 2 * COUNT
    for path in (tmp_path / "data").glob("train*"):
        path.rename(path.with_name(path.name.replace("train", "val")))
    with pytest.raises(
        DataError, match=r"one split in .*, but found test, val: choose with a patt"
    ):
        open_source(f"{kind}:{tmp_path}")


@pytest.mark.parametrize("kind", ["tfrecord", "tar"])
def test_index_is_built_once_and_goes_on_after_a_kill(kind, tmp_path, monkeypatch):
    WRITERS[kind](tmp_path)
    module, name = {"tfrecord": (tfrecord_file, "scan_offsets"), "tar": (tar_file, "scan_tar")}[
        kind
    ]
    original, scanned = getattr(module, name), []

    def scan(path):
        scanned.append(path.name)
        if len(scanned) == 3:
            raise RuntimeError("killed")
        return original(path)

    class OneThread(tar_file.ThreadPool):
        def __init__(self, _):
            super().__init__(1)

    monkeypatch.setattr(module, name, scan)
    monkeypatch.setattr("keras_ssl.data.examples.ThreadPool", OneThread)
    monkeypatch.setattr("keras_ssl.data.tar.ThreadPool", OneThread)
    with pytest.raises(RuntimeError, match="killed"):
        open_source(f"{kind}:{tmp_path}")
    assert open_source(f"{kind}:{tmp_path}").num_samples == COUNT
    assert len(scanned) == 4 and scanned[2] == scanned[3] and len(set(scanned)) == 3
    open_source(f"{kind}:{tmp_path}")
    assert len(scanned) == 4
    newer = tmp_path / scanned[0]
    os.utime(newer, (2e9, 2e9))
    open_source(f"{kind}:{tmp_path}")
    assert scanned[4:] == [newer.name]


@KINDS
def test_stream_shows_all_of_them(kind, tmp_path):
    WRITERS[kind](tmp_path)
    stream = SampleStream(open_source(f"{kind}:{tmp_path}"), COUNT)
    (element,) = stream.dataset(num_steps=1)
    ids = element["sample_id"].numpy()
    assert sorted(ids) == list(range(COUNT))
    np.testing.assert_array_equal(element["inputs"]["image"], PIXELS[ids])
    np.testing.assert_array_equal(element["labels"], LABELS[ids])


@KINDS
def test_prepared_copies_have_the_same_numbers_and_labels(kind, tmp_path):
    WRITERS[kind](tmp_path / "set", damage=True)
    source = open_source(f"{kind}:{tmp_path}/set")
    prepare(source, tmp_path / "cache", size=8)  # none is larger: copied as they are
    cache = open_source(tmp_path / "cache")
    np.testing.assert_array_equal(cache.labels, LABELS)
    assert cache.class_names == source.class_names and cache.canvas == source.canvas
    for a, b in zip(*(s.read_batch(np.arange(COUNT)) for s in (source, cache)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert source.num_broken == cache.num_broken == 1


def test_missing_files_say_what_to_give(tmp_path):
    for kind in WRITERS:
        with pytest.raises(DataError, match=f"Expected {kind} files at .*nothing, but found none"):
            open_source(f"{kind}:{tmp_path}/nothing")


# TFRecord


def test_other_names_of_features(tmp_path):
    write_tfrecords(tmp_path, image_key="pixels", label_key="kind")
    source = open_source(f"tfrecord:{tmp_path}")  # the only one that holds a picture
    assert "(pixels)" in source.describe() and not source.has_labels and source.labels is None
    source = open_source(f"tfrecord:{tmp_path}:image=pixels:label=kind")
    np.testing.assert_array_equal(source.labels, LABELS)
    for ending, match in {
        ":image=text": "Expected text in the records of .*, but found .*height.*: name it with",
        ":image=none": "Expected none in the records",
        ":label=text": "Expected text among the integers in .*, but found height, kind: name one",
    }.items():
        with pytest.raises(DataError, match=match):
            open_source(f"tfrecord:{tmp_path}{ending}")


def test_labels_can_be_left_out_and_can_be_missing(tmp_path):
    write_tfrecords(tmp_path / "a")
    assert not open_source(f"tfrecord:{tmp_path}/a:label=").has_labels
    labels = [2, None, 1]
    write_records(tmp_path / "b", [example(PICTURES[i], label) for i, label in enumerate(labels)])
    source = open_source(f"tfrecord:{tmp_path}/b")
    np.testing.assert_array_equal(source.read_batch(range(3))[2], range(3))  # none is broken
    np.testing.assert_array_equal(source.labels, [2, -1, 1])


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_tfrecords_are_refused(compression, tmp_path):
    records = [example(*pair) for pair in zip(PICTURES, LABELS, strict=True)]
    write_records(tmp_path / "a.tfrecord", records, compression)
    match = f"it is {compression}-compressed; a compressed file has no random access"
    with pytest.raises(DataError, match=match):
        open_source(tmp_path / "a.tfrecord")


def test_records_without_pictures_are_refused(tmp_path):
    write_records(tmp_path / "a.tfrecord", [example(b"\0" * 288, 1), example(b"raw", 0)])
    with pytest.raises(DataError, match=r"but found height, .*: name it .* \(raw pixels cannot"):
        open_source(tmp_path / "a.tfrecord")
    write_records(tmp_path / "b.tfrecord", [b"\xffno example"])
    with pytest.raises(DataError, match="but found no tf.train.Example records"):
        open_source(tmp_path / "b.tfrecord")
    write_records(tmp_path / "c.tfrecord", [])
    with pytest.raises(DataError, match="Expected records in .* but found none"):
        open_source(tmp_path / "c.tfrecord")


# Tar


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_folders_in_a_tar_are_classes(tar_format, tmp_path):
    """As if unpacked: one folder around all is passed over, hidden files are left out."""
    long = "x" * 90 + "/"  # longer than the 100 bytes of a plain header
    with tarfile.open(tmp_path / "a.tar", "w", format=tar_format) as tar:
        for number, name in enumerate(["cat/2.PNG", "cat/1.png", "ant/é.png", "bee/._x.png"]):
            add(tar, f"./{long}{name}", PICTURES[number])
        add(tar, f"./{long}.trash/y.png", PICTURES[5])
        link = tarfile.TarInfo(f"./{long}bee/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "2.PNG"
        tar.addfile(link)
    source = open_source(tmp_path / "a.tar")
    assert source.class_names == ("ant", "cat")
    np.testing.assert_array_equal(source.labels, [1, 1, 0])
    np.testing.assert_array_equal(source.read_batch(range(3))[0], PIXELS[:3])
    assert source.record_name(2).endswith(f"{long}ant/é.png]")


def test_samples_without_a_class_have_no_labels(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.png", PICTURES[0])
        add(tar, "0.cls", b"1")
        add(tar, "1.png", PICTURES[1])
    source = open_source(tmp_path / "a.tar")
    assert source.labels is None and source.class_names is None and not source.has_labels


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.xz"])
def test_packed_tars_are_refused(name, tmp_path):
    with tarfile.open(tmp_path / name, "w:xz" if name.endswith("xz") else "w:gz") as tar:
        add(tar, "0.png", PICTURES[0])
    for spec in (f"tar:{tmp_path}", tmp_path / name):
        with pytest.raises(
            DataError, match=f"uncompressed .tar file, but found .*{name}: .* unpack"
        ):
            open_source(spec)
    (tmp_path / name).rename(tmp_path / "b.tar")  # compressed, whatever it is called
    with pytest.raises(DataError, match="if it is packed, unpack it, else copy it again"):
        open_source(tmp_path / "b.tar")


def test_damaged_tars_are_refused(tmp_path):
    write_tars(tmp_path)
    path = tmp_path / "000002.tar"
    data = path.read_bytes()
    index = tar_file.scan_tar(path)
    third = int(index["offsets"][2]) - 512
    for wrong, match in (
        (data[: third + 600], "unexpected end of data"),
        (data[:third] + b"rubbish!" * 64 + data[third + 512 :], f"damage at byte {third:,}"),
        (b"rubbish!" * 64, "invalid header|bad checksum"),
        (b"", "empty file"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=f"uncompressed .tar file at .*, but found .*({match})"):
            open_source(path)


def test_tar_without_pictures_says_what_is_in_it(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "n01440764.tar", b"x")
        add(tar, "n01443537.tar", b"x")
    with pytest.raises(
        DataError, match="but found 2 x .tar: choose .* or unpack the archives in it"
    ):
        open_source(tmp_path / "a.tar")
    with pytest.raises(DataError, match="members of tar files have no features"):
        open_source(f"tar:{tmp_path}/a.tar:label=cls")


def test_unwritable_place_of_a_tar_is_done_without(tmp_path):
    write_tars(tmp_path / "set")
    (tmp_path / "occupied").write_text("a file where the folder would be")
    source = open_source(f"tar:{tmp_path}/set", cache_dir=tmp_path / "occupied")
    np.testing.assert_array_equal(source.read_batch([22])[0], PIXELS[[22]])
    assert len(list((tmp_path / "set").iterdir())) == len(SHARDS)


# Parquet


def test_plain_binary_column_and_null_rows(tmp_path):
    path = tmp_path / "a.parquet"
    rows = {"file": PICTURES[:3] + [None] * 1, "kind": pa.array([1, None, 0, 2], pa.int16())}
    pq.write_table(pa.table(rows), path)
    source = open_source(path)  # the only binary column; no column has a name of labels
    assert not source.has_labels
    source = open_source(f"parquet:{path}:label=kind", quarantine=tmp_path / "q")
    np.testing.assert_array_equal(source.labels, [1, -1, 0, 2])
    assert source.class_names == ()
    images, _, shown = source.read_batch(range(4))
    assert shown[3] != 3 and source.num_broken == 1
    np.testing.assert_array_equal(images, PIXELS[shown])


def test_row_groups_are_kept_up_to_a_limit(tmp_path, monkeypatch):
    write_parquet(tmp_path)
    source = open_source(tmp_path, num_threads=1)
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, number, **how: read.append(number) or original(self, number, **how),
    )
    source._cache.clear()
    source.read_batch(np.arange(COUNT))
    assert len(read) == 3 + 1 + 4  # 9, 1 and 13 rows in groups of 4
    source.read_batch(np.arange(COUNT))
    assert len(read) == 8
    monkeypatch.setattr("keras_ssl.data.parquet._CACHE_BYTES", 1)
    source._cache.clear()
    read.clear()
    source.read_batch([0, 1, 4, 5, 0])  # only the last group is kept
    assert read == [0, 1, 0]


def test_wrong_parquet_files_say_what_was_found(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"words": ["a"], "id": [1]}), path)
    with pytest.raises(DataError, match="one column of encoded pictures .* but found words, id: "):
        open_source(path)
    pq.write_table(pa.table({"image": [PICTURES[0]], "id": [1]}), path)
    with pytest.raises(DataError, match="Expected name among the integer columns .*, but found id"):
        open_source(f"parquet:{path}:label=name")
    pq.write_table(pa.table({"image": PICTURES[:0]}), path)
    with pytest.raises(DataError, match="Expected rows in .*, but found none"):
        open_source(path)
    path.write_text("not a Parquet file")
    with pytest.raises(DataError, match="Expected a Parquet file at .*: copy it again"):
        open_source(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"package pyarrow .*`pip install 'keras_ssl\[parquet\]'"):
        open_source(path)
