"""The order of samples is exactly the promised function of (seed, position), however it is read."""

import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import random
from keras_ssl.data import ArraySource, DataError, FolderSource, SampleStream

N = 103


def make_source(count=N, labels=True):
    """Image i is filled with i, so what is shown can be checked against its number."""
    images = np.zeros((count, 2, 3, 3), np.uint8) + (np.arange(count) % 256)[
        :, None, None, None
    ].astype(np.uint8)
    return ArraySource(images, np.arange(count) % 7 if labels else None)


def read(stream, *args, **kwargs):
    """Returns the elements with NumPy values."""
    return [tf.nest.map_structure(lambda t: t.numpy(), e) for e in stream.dataset(*args, **kwargs)]


def column(elements, key):
    return np.concatenate([element[key] for element in elements])


def reference_order(num_samples, batch, seed, positions):
    """One record at a time, from the definition, in plain Python integers and a scalar op."""
    shown = num_samples // batch * batch
    order = []
    for position in positions:
        epoch, within = divmod(int(position), shown)
        key = random.fold_in(
            random.sample_keys(seed, tf.constant([epoch], tf.int64)), "epoch_order"
        )
        order.append(
            tf.raw_ops.RandomIndexShuffle(
                index=tf.constant(within, tf.int64),
                seed=tf.constant(random.bits(key, (3,)).numpy()[0]),
                max_index=tf.constant(num_samples - 1, tf.int64),
                rounds=8,
            ).numpy()
        )
    return np.array(order)


def test_order_is_the_promised_function():
    elements = read(SampleStream(make_source(), 10, seed=5), num_steps=23)
    positions = column(elements, "position")
    np.testing.assert_array_equal(positions, np.arange(230))
    np.testing.assert_array_equal(
        column(elements, "sample_id"), reference_order(N, 10, 5, positions)
    )


def test_elements_hold_what_they_say():
    elements = read(SampleStream(make_source(), 10), num_steps=12)
    for element in elements:
        assert set(element) == {"inputs", "aspect", "position", "sample_id", "labels"}
        image, ids = element["inputs"]["image"], element["sample_id"]
        assert image.dtype == np.uint8 and image.shape == (10, 2, 3, 3)
        assert (image == ids.astype(np.uint8)[:, None, None, None]).all()
        np.testing.assert_array_equal(element["labels"], ids % 7)
        types = [element[k].dtype for k in ("aspect", "position", "sample_id", "labels")]
        assert types == [np.float32, np.int64, np.int64, np.int32]
    assert "labels" not in read(SampleStream(make_source(labels=False), 10), num_steps=1)[0]


def test_shapes_are_static_and_the_stream_is_endless():
    dataset = SampleStream(make_source(), 10).dataset(per_replica_batch=5)
    shapes = tf.nest.map_structure(lambda spec: spec.shape.as_list(), dataset.element_spec)
    assert shapes == {
        "inputs": {"image": [5, 2, 3, 3]},
        "aspect": [5],
        "position": [5],
        "sample_id": [5],
        "labels": [5],
    }
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert SampleStream(make_source(), 10).dataset(num_steps=4).cardinality() == 4


def test_each_epoch_is_a_permutation_without_its_tail():
    stream = SampleStream(make_source(), 10, seed=2)
    assert stream.steps_per_epoch == 10
    epochs = column(read(stream, num_steps=40), "sample_id").reshape(4, 100)
    for epoch in epochs:
        assert len(set(epoch)) == 100 and epoch.min() >= 0 and epoch.max() < N
    left_out = [frozenset(range(N)) - set(epoch) for epoch in epochs]
    assert len(set(left_out)) > 1  # another tail each time
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (2, 1), (2, 2), (3, 2), (5, 5), (16, 4)])
def test_tiny_sources(count, batch):
    stream = SampleStream(make_source(count), batch)
    per_epoch = stream.steps_per_epoch
    for epoch in range(5):
        ids = column(read(stream, epoch * per_epoch, per_epoch), "sample_id")
        assert len(set(ids)) == len(ids) == per_epoch * batch


def test_seeds_give_different_orders_and_one_seed_always_the_same():
    def order(seed):
        return tuple(
            column(read(SampleStream(make_source(), 10, seed=seed), num_steps=2), "sample_id")
        )

    assert order(0) == order(0)
    assert len({order(seed) for seed in (0, 1, 2, 2**32, 2**62)}) == 5


def test_without_shuffle_records_come_in_order():
    ids = column(read(SampleStream(make_source(), 10, shuffle=False), num_steps=11), "sample_id")
    np.testing.assert_array_equal(ids, [*range(100), *range(10)])


def ids_of_epochs(num_samples, batch, epochs, seed=0):
    """Record numbers `(epochs, steps, batch)` straight from the stream's formula."""
    stream = SampleStream(make_source(num_samples), batch, seed=seed)
    shown = stream.steps_per_epoch * batch
    order = tf.function(stream.records, reduce_retracing=True)
    rows = [
        order(tf.range(e * shown, (e + 1) * shown, dtype=tf.int64)).numpy() for e in range(epochs)
    ]
    return np.stack(rows).reshape(epochs, -1, batch)


def test_batch_mates_of_two_epochs_are_independent():
    """Expected pairs that share a batch in both of two epochs: pairs x (b - 1) / (n - 1).

    In one epoch, n / b batches of b (b - 1) / 2 pairs each. Any pair shares a batch of another,
    independent epoch with probability (b - 1) / (n - 1). The count over E (E - 1) / 2 pairs of
    epochs is nearly Poisson.
    """
    n, b, epochs = 512, 16, 12
    ids = ids_of_epochs(n, b, epochs)
    batch_of = np.empty((epochs, n), int)
    for e in range(epochs):
        batch_of[e, ids[e].ravel()] = np.repeat(np.arange(n // b), b)
    counts = []
    for e in range(epochs):
        for f in range(e):
            joint = np.bincount(batch_of[e] * (n // b) + batch_of[f], minlength=(n // b) ** 2)
            counts.append((joint * (joint - 1) // 2).sum())
    pairs = n // b * b * (b - 1) / 2
    expected = pairs * (b - 1) / (n - 1)
    total = expected * len(counts)
    assert abs(sum(counts) - total) < 5 * np.sqrt(total)
    assert max(counts) < expected + 6 * np.sqrt(expected)


def test_batches_of_sorted_labels_mix_classes_as_chance_would():
    """Hypergeometric: with 8 equal classes a batch of 64 of 4,096 has 8 of each, variance 6.9."""
    n, b, classes = 4096, 64, 8
    ids = ids_of_epochs(n, b, 6)
    counts = np.stack([(ids * classes // n == c).sum(-1) for c in range(classes)])
    share = 1 / classes
    variance = b * share * (1 - share) * (n - b) / (n - 1)
    assert counts.var() == pytest.approx(variance, rel=0.15)
    neighbors = np.corrcoef(ids.ravel()[:-1], ids.ravel()[1:])[0, 1]
    assert abs(neighbors) < 5 / np.sqrt(ids.size)


@pytest.mark.parametrize("start", [1, 9, 10, 17])
def test_starting_late_equals_skipping(start):
    stream = SampleStream(make_source(), 10, seed=4)
    whole, late = read(stream, num_steps=20), read(stream, start, 20 - start)
    for a, b in zip(whole[start:], late, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 3)])
def test_workers_and_replicas_together_see_the_one_process_batches(workers, replicas):
    stream = SampleStream(make_source(), 24, seed=9)
    whole = read(stream, start_step=2, num_steps=5)
    batch = 24 // workers // replicas
    blocks = [
        read(stream, 2, 5, per_replica_batch=batch, num_workers=workers, worker_index=w)
        for w in range(workers)
    ]
    for step, expected in enumerate(whole):
        parts = [b for w in blocks for b in w[step * replicas : (step + 1) * replicas]]
        joined = tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)
        tf.nest.map_structure(np.testing.assert_array_equal, joined, expected)


def test_far_positions_and_large_sources_start_at_once():
    """A source that claims 10^12 records, at step 10^9: no time, no memory, no overflow."""

    class Huge(ArraySource):
        def read_batch(self, indices, positions=None):
            assert indices.min() >= 0 and indices.max() < self.num_samples
            images, aspect, _ = super().read_batch(indices % 8)
            return images, aspect, indices

    source = Huge(np.zeros((8, 2, 2, 3), np.uint8))
    source.num_samples = 10**12
    stream = SampleStream(source, 1000)
    began = time.perf_counter()
    element = next(iter(stream.dataset(start_step=10**9 + 3)))
    assert time.perf_counter() - began < 10
    np.testing.assert_array_equal(element["position"], (10**9 + 3) * 1000 + np.arange(1000))
    ids = element["sample_id"].numpy()
    assert len(set(ids)) == 1000 and ids.max() > 9e11  # spread over everything, within int64


def test_wrong_settings_are_refused():
    source = make_source()
    with pytest.raises(DataError, match="batch of 200, but found 103: use a smaller batch"):
        SampleStream(source, 200)
    with pytest.raises(ValueError, match="global_batch_size=0"):
        SampleStream(source, 0)
    with pytest.raises(ValueError, match="seed=-1"):
        SampleStream(source, 10, seed=-1)
    stream = SampleStream(source, 10)
    with pytest.raises(ValueError, match="`num_workers` must divide 10. Received: num_workers=3"):
        stream.dataset(num_workers=3)
    with pytest.raises(ValueError, match="`per_replica_batch` must divide 5"):
        stream.dataset(num_workers=2, per_replica_batch=2)
    with pytest.raises(ValueError, match="worker_index=2"):
        stream.dataset(num_workers=2, worker_index=2)
    with pytest.raises(ValueError, match="start_step=-1"):
        stream.dataset(start_step=-1)


def test_two_replicas_are_handed_their_blocks_of_each_step(subprocess_env):
    script = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_ssl.data import SampleStream, open_source
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
stream = SampleStream(open_source(np.zeros((50, 2, 2, 3), np.uint8)), 8)
one = iter(stream.dataset())
two = iter(strategy.distribute_datasets_from_function(
    lambda context: stream.dataset(
        per_replica_batch=context.get_per_replica_batch_size(8),
        num_workers=context.num_input_pipelines,
        worker_index=context.input_pipeline_id,
    )
))
for step in range(30):
    element = next(two)
    whole = next(one)
    for key in ("position", "sample_id"):
        parts = [part.numpy() for part in strategy.experimental_local_results(element[key])]
        assert len(parts) == 2 and (np.concatenate(parts) == whole[key].numpy()).all(), (step, key, parts)
"""
    run_script(script, subprocess_env)


def test_process_may_end_while_the_stream_reads_ahead(tmp_path, subprocess_env):
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    for i in range(64):
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    script = f"""
from keras_ssl.data import SampleStream, open_source
iterator = iter(SampleStream(open_source({str(tmp_path)!r}), 64).dataset())
next(iterator)
"""
    assert "shutdown" not in run_script(script, {**subprocess_env, "TF_CPP_MIN_LOG_LEVEL": "0"})


def run_script(script, env):
    """Runs a Python script and returns what it wrote to stderr."""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_speed_of_photos_is_printed(tmp_path, capsys):
    """500x375 JPEG photos onto a 448x448 canvas; a measurement, nothing is asserted about it."""
    rng = np.random.default_rng(0)
    for i in range(64):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg", quality=90)
    source = FolderSource(tmp_path)
    iterator = iter(SampleStream(source, 32).dataset(num_steps=8))
    next(iterator)
    began = time.perf_counter()
    steps = sum(1 for _ in iterator)
    rate = steps * 32 / (time.perf_counter() - began)
    with capsys.disabled():
        print(f"\n{source.describe()}: {rate:.0f} images/s with {source.num_threads} threads")
    assert steps == 7
