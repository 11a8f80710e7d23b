"""The workers of a run on several machines, as `TF_CONFIG` names them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from keras_ssl import env

_FORM = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")


class StrategyError(ValueError):
    """The asked strategy cannot run on this machine."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one run, and which of them this process is.

    Attributes:
        workers: tuple of str. `host:port` of each, in the order in which they share a batch.
        tasks: tuple of str. TensorFlow's name of each, e.g. `/job:worker/task:1`.
        index: int. This process's place in both.
    """

    workers: tuple[str, ...]
    tasks: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """bool. Whether this process writes for all."""
        return self.index == 0

    def __len__(self) -> int:
        return len(self.workers)


def read_cluster(text: str | None = None) -> Cluster | None:
    """Returns the cluster that `TF_CONFIG` describes.

    A cluster has jobs `worker` and, if one likes, one `chief`, which then comes first; without it worker 0 is the
    chief.

    Args:
        text: str. JSON of the form of `TF_CONFIG`. Defaults to that environment variable.

    Returns:
        Cluster, or None if the variable is not set.

    Raises:
        StrategyError: If the text is not of this form.
    """
    text = env.tf_config() if text is None else text
    if text is None:
        return None
    try:
        content = json.loads(text)
        jobs, task = content["cluster"], content["task"]
        kind, number = task["type"], task["index"]
        addresses = [(job, jobs[job]) for job in _JOBS if job in jobs]
    except (ValueError, KeyError, TypeError) as error:
        raise _wrong(text, f"{type(error).__name__}: {error}") from error
    others = sorted(set(jobs) - set(_JOBS))
    if others or kind not in jobs:
        raise _wrong(text, f"job {(others or [kind])[0]!r} where there is only chief and worker")
    return _checked(text, addresses, kind, number)


def _checked(text: str, jobs: list[tuple[str, Any]], kind: str, number: Any) -> Cluster:
    workers, tasks = [], []
    for job, hosts in jobs:
        if not isinstance(hosts, list) or not hosts:
            raise _wrong(text, f"no list of addresses for job {job!r}")
        for place, host in enumerate(hosts):
            if not isinstance(host, str) or not host.rpartition(":")[2].isdigit():
                raise _wrong(text, f"{host!r} where an address HOST:PORT is wanted")
            workers.append(host)
            tasks.append(f"/job:{job}/task:{place}")
    if len(set(workers)) < len(workers):
        raise _wrong(text, "an address that two workers share")
    own = f"/job:{kind}/task:{number}"
    if not isinstance(number, int) or own not in tasks:
        raise _wrong(text, f"index {number!r} of job {kind!r}, which has no such task")
    return Cluster(tuple(workers), tuple(tasks), tasks.index(own))


def _wrong(text: str, reason: str) -> StrategyError:
    shown = text if len(text) < 200 else text[:200] + "..."
    return StrategyError(f"Expected TF_CONFIG of the form {_FORM}. Received: {shown} ({reason}).")
