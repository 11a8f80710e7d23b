"""What TF_CONFIG says, and how many replicas a strategy will have, before any device is touched."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from keras_ssl.distribution import StrategyError, planned_replicas, read_cluster

HOSTS = ["a:1", "b:1", "c:2"]


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "text, index, tasks",
    [
        (
            config({"worker": HOSTS}, index=0),
            0,
            ["worker/task:0", "worker/task:1", "worker/task:2"],
        ),
        (
            config({"worker": HOSTS}, index=2),
            2,
            ["worker/task:0", "worker/task:1", "worker/task:2"],
        ),
        (
            config({"worker": HOSTS[1:], "chief": HOSTS[:1]}, index=1),
            2,
            ["chief/task:0", "worker/task:0", "worker/task:1"],
        ),
        (
            config({"worker": HOSTS[1:], "chief": HOSTS[:1]}, "chief"),
            0,
            ["chief/task:0", "worker/task:0", "worker/task:1"],
        ),
    ],
)
def test_a_cluster_is_read(text, index, tasks, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    cluster = read_cluster()
    assert cluster.workers == tuple(HOSTS) and len(cluster) == 3
    assert cluster.tasks == tuple("/job:" + task for task in tasks)
    assert (cluster.index, cluster.chief) == (index, index == 0)


def test_places_are_those_of_tensorflow(monkeypatch):
    """The order of the workers is that of the input pipelines, which cut the batch."""
    from tensorflow.python.distribute import multi_worker_util

    for kind, number in (("chief", 0), ("worker", 0), ("worker", 1)):
        jobs = {"worker": HOSTS[1:], "chief": HOSTS[:1]}
        cluster = read_cluster(config(jobs, kind, number))
        assert cluster.index == multi_worker_util.id_in_cluster(jobs, kind, number)
        assert cluster.chief == multi_worker_util.is_chief(jobs, kind, number)


WRONG = {
    "worker 0": "JSONDecodeError",
    "[]": "TypeError",
    "{}": "KeyError: 'cluster'",
    '{"cluster": {"worker": ["a:1"]}}': "KeyError: 'task'",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}': "KeyError: 'index'",
    config({"worker": []}): "no list of addresses",
    config({"worker": "a:1,b:1"}): "no list of addresses",
    config({"worker": ["a", "b:1"]}): "'a' where an address HOST:PORT",
    config({"worker": ["a:1", "a:1"]}): "two workers share",
    config({"worker": HOSTS}, index=3): "index 3 of job 'worker'",
    config({"worker": HOSTS}, index="0"): "index '0' of job",
    config({"worker": HOSTS}, index=True): "index True of job",
    config({"worker": HOSTS}, "chief"): "job 'chief'",
    config({"worker": HOSTS, "ps": ["d:1"]}): "job 'ps'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_cluster_is_one_sentence(text):
    with pytest.raises(StrategyError) as caught:
        read_cluster(text)
    message = str(caught.value)
    assert message.startswith("Expected TF_CONFIG of the form") and text[:200] in message
    assert WRONG[text] in message and "\n" not in message


@pytest.mark.parametrize(
    "name, replicas, workers, gpus, count",
    [
        ("auto", None, 0, 0, 1),
        ("auto", None, 0, 4, 4),
        ("auto", None, 1, 0, 1),
        ("cpu", None, 0, 4, 1),
        ("gpu", None, 0, 4, 1),
        ("mirrored", None, 0, 0, 2),
        ("mirrored", None, 0, 4, 4),
        ("mirrored", 3, 0, 4, 3),
        ("multiworker", None, 3, 0, 3),
        ("multiworker", None, 3, 2, 6),
        ("tpu", None, 3, 0, None),
    ],
)
def test_replicas_are_counted_ahead(name, replicas, workers, gpus, count, monkeypatch):
    hosts = [f"h{i}:1" for i in range(workers)]
    monkeypatch.setenv("TF_CONFIG", config({"worker": hosts}) if workers else "")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    assert planned_replicas(name, replicas) == count


@pytest.mark.parametrize("name", ["auto", "cpu", "gpu", "mirrored"])
def test_a_cluster_wants_its_strategy(name, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config({"worker": HOSTS}))
    with pytest.raises(StrategyError, match="--strategy multiworker where TF_CONFIG names 3"):
        planned_replicas(name)
