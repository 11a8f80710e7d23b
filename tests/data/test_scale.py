"""Starting and keeping a sample stream costs the same for ten thousand records and for a billion."""

import io
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_ssl.data import SampleStream
from keras_ssl.data.encoded import EncodedSource

BATCH, STEPS = 32, 6
SIZES = (10**4, 10**6, 10**9)


class VirtualSource(EncodedSource):
    """As many records as wanted; record i is a picture of the color of i's last three bytes."""

    labels = None

    def record(self, index):
        assert 0 <= index < self.num_samples
        file = io.BytesIO()
        Image.new("RGB", (16, 16), tuple(index.to_bytes(8, "little")[:3])).save(file, "PNG")
        return file.getvalue()

    def record_name(self, index):
        return f"record {index}"

    def fingerprint(self):
        return f"{self.num_samples:016x}"


def resident():
    """Returns the bytes of memory that this process holds now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def run(num_samples, start_step):
    """Returns the CPU seconds to the first batch, the most bytes that Python held, and the process's growth."""
    before = resident()
    tracemalloc.start()
    begun = time.process_time()
    stream = SampleStream(VirtualSource(num_samples, num_threads=1), BATCH, seed=3)
    elements = iter(stream.dataset(start_step, STEPS))
    first = next(elements)
    seconds = time.process_time() - begun
    for element in [first, *elements]:
        ids, image = element["sample_id"].numpy(), element["inputs"]["image"].numpy()
        want = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1)
        np.testing.assert_array_equal(image[:, 7, 7], want)
        assert ids.min() >= 0 and ids.max() < num_samples and len(set(ids)) == BATCH
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak, resident() - before


@pytest.fixture(scope="module")
def costs():
    run(100, 0)  # what is made once: TensorFlow's own, and imports
    return {n: [run(n, start) for start in (0, n // BATCH * 3 + 5)] for n in SIZES}


def test_memory_does_not_grow_with_the_data(costs):
    """A table of a byte for each record would be a megabyte at a million records."""
    peaks = [peak for n in SIZES for _, peak, _ in costs[n]]
    assert max(peaks) - min(peaks) < 500_000, peaks
    assert max(peaks) < 3_000_000, peaks
    grown = max(growth for _, _, growth in costs[SIZES[-1]])
    assert grown < 200_000_000, grown  # TensorFlow's tables too: a byte each would be a gigabyte


def test_time_to_the_first_batch_does_not_grow_with_the_data(costs):
    """Also for the start in a later epoch, which a resumed run makes. CPU time of this process."""
    small = max(seconds for seconds, *_ in costs[SIZES[0]])
    for n in SIZES[1:]:
        assert min(seconds for seconds, *_ in costs[n]) < 3 * small + 0.5, costs


def test_billion_records_are_spread_over_all_of_them():
    """4,096 records of an epoch: all different, and every sixteenth of the numbers has its share."""
    stream = SampleStream(VirtualSource(10**9), 4096, seed=1)
    ids = stream.records(np.arange(4096, dtype=np.int64)).numpy()
    assert len(set(ids)) == 4096
    share = np.bincount(ids * 16 // 10**9, minlength=16)
    # Binomial with mean 256 and standard deviation 15.5: five of them.
    assert np.abs(share - 256).max() < 78
