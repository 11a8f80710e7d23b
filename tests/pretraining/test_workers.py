"""What several processes agree on, here with an exchange that answers for the others."""

from __future__ import annotations

import json
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import views
from keras_ssl.data import SampleStream, open_source
from keras_ssl.distribution import Cluster
from keras_ssl.pretraining import build, workers
from keras_ssl.pretraining.recipe import SettingError
from tests.contract.rows import images


def cluster(index, count=2):
    tasks = tuple(f"/job:worker/task:{i}" for i in range(count))
    return Cluster(tuple(f"h{i}:1" for i in range(count)), tasks, index)


def joined(index, answers, count=2):
    """Returns the processes as number `index` of them sees them; `answers` are what all say, None for its own."""
    made = workers.Workers(tf.distribute.OneDeviceStrategy("/cpu:0"), cluster(index, count))
    made.asked = []

    def gather(number):
        made.asked.append(number)
        return [number if answer is None else answer for answer in answers.pop(0)]

    made.gather = gather
    return made


@pytest.mark.parametrize("index", [0, 1])
def test_each_worker_reads_its_contiguous_block(index):
    """Of every batch of 16, on two workers with two devices each."""
    stream = SampleStream(open_source(images(32)), 16, seed=3)
    engine = types.SimpleNamespace(recipe=views.customize(views.get("simclr_cifar"), image_size=16))
    model = types.SimpleNamespace(view_engine=engine, seed=0)
    context = tf.distribute.InputContext(2, index, 4)
    strategy = types.SimpleNamespace(distribute_datasets_from_function=lambda make: make(context))
    batches = build.build_batches(stream, model, strategy, start_step=5, views_on_host=False)
    positions = np.concatenate([next(batches)["position"] for _ in range(4)])  # two steps
    first = 5 * 16 + 8 * index
    np.testing.assert_array_equal(
        positions, [*range(first, first + 8), *range(first + 16, first + 24)]
    )


def test_alone_nothing_is_asked():
    alone = workers.Workers(tf.distribute.OneDeviceStrategy("/cpu:0"), None)
    alone._exchange = None
    assert alone.chief and alone.gather(-7) == [-7]
    alone.wait()
    alone.leave()
    alone.check_same("settings", "a")
    assert alone.restore(types.SimpleNamespace(restore=lambda: None)) is None


def test_numbers_come_from_workers_and_not_from_their_devices():
    """Two workers with three devices each: six numbers arrive, of which two are meant."""
    made = workers.Workers(tf.distribute.OneDeviceStrategy("/cpu:0"), cluster(1))
    made._exchange = lambda number: tf.constant([5, 5, 5, -1, -1, -1], tf.int64)
    assert made.gather(-1) == [5, -1]


def test_what_differs_is_named():
    same = joined(1, [[None, None]])
    same.check_same("settings", "a")
    assert 0 <= same.asked[0] < 2**60
    for index in range(3):  # all of them stop
        with pytest.raises(SettingError, match=r"the same data on all workers.*worker 2 \(h2:1\)"):
            joined(index, [[5, 5, 6]], 3).check_same("data", "a")


def checkpoints(folder, step):
    restored = None if step is None else {"step": step}
    return types.SimpleNamespace(path=lambda number: folder / str(number), restore=lambda: restored)


def test_the_chief_names_the_checkpoint(tmp_path):
    chief = joined(0, [[None, 9], [None, None]])
    assert chief.restore(checkpoints(tmp_path, 12)) == {"step": 12}
    assert chief.asked[0] == 12
    other = joined(1, [[-1, None], [None, None]])
    assert other.restore(checkpoints(tmp_path, 12)) is None  # a folder seen by this one alone
    other = joined(1, [[12, None], [None, None]])
    threading.Timer(0.3, (tmp_path / "12").mkdir).start()
    assert other.restore(checkpoints(tmp_path, 12)) == {"step": 12}
    assert (tmp_path / "12").is_dir()  # it has waited
    with pytest.raises(SettingError, match="the same checkpoint on all workers"):
        joined(1, [[12, None], [7, None]]).restore(checkpoints(tmp_path, 9))


def test_a_folder_that_is_not_shared_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_SHARED_SECONDS", 0.2)
    before = time.monotonic()
    with pytest.raises(SettingError, match="worker 1 does not see recipe.json of the chief"):
        joined(1, []).find(tmp_path / "recipe.json")
    assert time.monotonic() - before > 0.2


def test_a_chief_that_has_written_all_does_not_mind(tmp_path):
    def gone(number):
        raise tf.errors.UnavailableError(None, None, "gone")

    chief, other = joined(0, []), joined(1, [])
    chief.gather = other.gather = gone
    chief.leave()
    with pytest.raises(tf.errors.UnavailableError):
        other.leave()


_REMOTE = "Additional GRPC error information from remote target /job:worker/replica:0/task:1 while"
_SILENT = "Error reported from /job:worker/task:2: unhealthy:\n/job:worker/replica:0/task:2"


@pytest.mark.parametrize(
    "error, who",
    [
        (
            tf.errors.UnavailableError(None, None, f"recvmsg:Connection reset\n{_REMOTE}"),
            "worker 1 (h1:1)",
        ),
        (
            tf.errors.InternalError(None, None, f"Collective ops is aborted by: {_SILENT}"),
            "worker 2 (h2:1)",
        ),
        (tf.errors.UnavailableError(None, None, f"{_REMOTE} {_SILENT}"), "another worker"),
        (tf.errors.CancelledError(None, None, "from /job:worker/task:0"), "another worker"),
        (tf.errors.ResourceExhaustedError(None, None, "out of memory"), None),
        (tf.errors.InvalidArgumentError(None, None, "shapes"), None),
    ],
)
def test_which_errors_mean_a_lost_worker(error, who, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert workers.lost(error) is None  # one process has nobody to lose
    alone = {"cluster": {"worker": ["h0:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(alone))
    assert workers.lost(error) is None
    jobs = {"worker": ["h0:1", "h1:1", "h2:1"]}
    text = json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", text)
    sentence = workers.lost(error)
    if who is None:
        assert sentence is None
    else:
        assert f"Worker 0 lost the connection to {who}, which" in sentence
        assert "same command" in sentence
