"""A prepared TensorFlow Datasets set is read offline, at random, as `tfds.load` would read it."""

import os
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_ssl.data import DataError, SampleStream, TFDSSource, open_source
from keras_ssl.data.tfrecord import TFRecordShard, scan_offsets

COUNT = 30


def prepare(root, name, features, splits):
    """Writes a set as TensorFlow Datasets stores it: shards, features.json, dataset_info.json."""
    folder = root / name / "1.2.0"
    folder.mkdir(parents=True)
    infos = []
    for split, shards in splits.items():
        for number, examples in enumerate(shards):
            shard = f"{name}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            write_records(folder / shard, [features.serialize_example(e) for e in examples])
        lengths = [len(examples) for examples in shards]
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=0))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, filename_template=template
    )


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Noise pictures in three classes: 30 to train in three shards, 5 to test in one."""
    root = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(8, 12, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        }
    )
    rng = np.random.default_rng(0)
    examples = [
        features.encode_example(
            {
                "id": f"picture {i}",
                "image": rng.integers(0, 256, (8, 12, 3), dtype=np.uint8),
                "label": i * i % 3,
            }
        )
        for i in range(COUNT + 5)
    ]
    shards = [examples[:8], examples[8:20], examples[20:COUNT]]
    prepare(root, "tiny_pictures", features, {"train": shards, "test": [examples[COUNT:]]})
    return root


def loaded(root, split):
    builder = tfds.builder_from_directory(root / "tiny_pictures" / "1.2.0")
    config = tfds.ReadConfig(interleave_cycle_length=1)
    examples = list(tfds.as_numpy(builder.as_dataset(split=split, read_config=config)))
    return np.stack([e["image"] for e in examples]), np.array([e["label"] for e in examples])


@pytest.mark.parametrize("split", ["train", "test", "train[:40%]", "train[7:23]"])
def test_equals_tfds_load(prepared, split):
    source = open_source(f"tfds:tiny_pictures:{split}", data_dir=prepared)
    images, labels = loaded(prepared, split)
    assert source.num_samples == len(images)
    order = np.random.default_rng(0).permutation(len(images))
    got, aspect, shown = source.read_batch(order)
    np.testing.assert_array_equal(got, images[order])
    np.testing.assert_array_equal(shown, order)
    np.testing.assert_array_equal(aspect, np.ones(len(order), np.float32))
    np.testing.assert_array_equal(source.labels_of(order), labels[order])
    np.testing.assert_array_equal(source.labels, labels)


def test_names_labels_and_description(prepared):
    source = open_source("tfds:tiny_pictures", data_dir=prepared)
    assert source.class_names == ("ant", "bee", "cat") and source.has_labels
    assert source.describe() == ("tiny_pictures/1.2.0 train: 30 images in 3 classes, 12x8 PNG")
    by_version = open_source("tfds:tiny_pictures:1.2.0:train", data_dir=prepared)
    by_folder = open_source(f"tfds:{prepared / 'tiny_pictures' / '1.2.0'}")
    assert source.fingerprint() == by_version.fingerprint() == by_folder.fingerprint()
    assert (
        source.fingerprint()
        != open_source("tfds:tiny_pictures:test", data_dir=prepared).fingerprint()
    )
    np.testing.assert_array_equal(
        source.labels, loaded(prepared, "train")[1]
    )  # nothing read before


def test_stream_has_labels_without_reading_all(prepared, monkeypatch):
    source = open_source("tfds:tiny_pictures", data_dir=prepared)
    images, labels = loaded(prepared, "train")
    monkeypatch.setattr(TFDSSource, "labels", property(lambda self: pytest.fail("reads all")))
    for element in SampleStream(source, 8).dataset(num_steps=6):
        ids = element["sample_id"].numpy()
        np.testing.assert_array_equal(element["labels"], labels[ids])
        np.testing.assert_array_equal(element["inputs"]["image"], images[ids])


def test_index_is_kept_next_to_the_shard_and_built_once(prepared, tmp_path, monkeypatch):
    root = tmp_path / "data"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("*.offsets.npy"))
    open_source("tfds:tiny_pictures", data_dir=root)
    assert len(list(root.rglob("*.tfrecord-*-of-*.offsets.npy"))) == 3
    monkeypatch.setattr("keras_ssl.data.tfrecord.scan_offsets", None)
    assert open_source("tfds:tiny_pictures", data_dir=root).num_samples == COUNT


def test_index_goes_to_the_cache_folder_if_given(prepared, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("*.offsets.npy"))
    open_source("tfds:tiny_pictures", data_dir=root, cache_dir=tmp_path / "cache")
    assert not list(root.rglob("*.npy")) and len(list((tmp_path / "cache").iterdir())) == 3


def test_shard_reads_any_record_and_notices_a_new_file(tmp_path):
    path = tmp_path / "a.tfrecord"
    records = [b"", b"x" * 1000, b"yz", os.urandom(70_000)]
    write_records(path, records)
    shard = TFRecordShard(path)
    assert [shard[i] for i in (3, 0, 2, 1)] == [records[i] for i in (3, 0, 2, 1)]
    np.testing.assert_array_equal(shard.starts, np.cumsum([0] + [len(r) + 16 for r in records]))
    write_records(path, records[::-1])  # the same size, other offsets
    os.utime(path, (2e9, 2e9))
    assert [TFRecordShard(path)[i] for i in range(4)] == records[::-1]
    with pytest.raises(OSError, match="record 1 of .* is not where its index says"):
        shard[1]


def test_unwritable_cache_is_done_without(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"one", b"two"])
    (tmp_path / "occupied").write_text("a file where the folder would be")
    assert TFRecordShard(path, cache_dir=tmp_path / "occupied")[1] == b"two"


def test_damaged_index_is_built_again(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"one", b"two"])
    (tmp_path / "a.tfrecord.offsets.npy").write_bytes(b"half a")
    assert TFRecordShard(path)[1] == b"two"


def test_files_that_are_not_whole_tfrecords(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"one", b"two" * 100])
    data = path.read_bytes()
    for wrong in (data[:-1], data[:25], b"plain text, plain text", struct.pack("<Q", 2**63)):
        path.write_bytes(wrong)
        with pytest.raises(
            DataError, match="Expected an uncompressed TFRecord file at .*a.tfrecord"
        ):
            scan_offsets(path)
    with pytest.raises(DataError, match="found nothing there: the data set is incomplete"):
        TFRecordShard(tmp_path / "missing.tfrecord")


def test_missing_records_are_noticed(prepared, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("*.offsets.npy"))
    shard = sorted(root.rglob("*train.tfrecord-*"))[0]
    starts = scan_offsets(shard)
    shard.write_bytes(shard.read_bytes()[: starts[-2]])
    with pytest.raises(
        DataError, match="Expected 8 records in .* but found 7: the data set is damaged"
    ):
        open_source("tfds:tiny_pictures", data_dir=root)


def test_damaged_record_is_quarantined(prepared, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns("*.offsets.npy"))
    shard = sorted(root.rglob("*train.tfrecord-*"))[1]
    data, starts = bytearray(shard.read_bytes()), scan_offsets(shard)
    data[starts[4] + 12 : starts[5] - 4] = b"\xff" * (starts[5] - starts[4] - 16)
    shard.write_bytes(data)
    source = open_source("tfds:tiny_pictures", data_dir=root, quarantine=tmp_path / "q.jsonl")
    shown = source.read_batch(np.arange(COUNT))[2]
    assert [i for i in range(COUNT) if shown[i] != i] == [12]
    assert f"{shard}[4]" in (tmp_path / "q.jsonl").read_text()
    labels = loaded(prepared, "train")[1]
    labels[12] = -1
    np.testing.assert_array_equal(source.labels, labels)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("tfds:no_such_set", r"no_such_set prepared in .* run `tfds build no_such_set --data_dir="),
        ("tfds:tiny_pictures:9.9.9", "Expected TensorFlow Datasets set tiny_pictures:9.9.9"),
        (
            "tfds:tiny_pictures:valid",
            r"Expected a split of tiny_pictures/1.2.0 \(.*test.*\), but found 'valid'",
        ),
        ("tfds:", "give the name of a data set"),
    ],
)
def test_wrong_names_say_what_to_do(prepared, spec, match):
    with pytest.raises(DataError, match=match):
        open_source(spec, data_dir=prepared)


def test_set_without_images_is_refused(tmp_path):
    features = tfds.features.FeaturesDict({"words": tfds.features.Text()})
    prepare(
        tmp_path, "tiny_texts", features, {"train": [[features.encode_example({"words": "none"})]]}
    )
    with pytest.raises(DataError, match="Expected an image among the features .* but found words"):
        open_source("tfds:tiny_texts", data_dir=tmp_path)
