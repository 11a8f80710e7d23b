"""What the processes of a run on several machines must agree on, and how one learns that another is gone."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_ssl.distribution import Cluster, gather, read_cluster
from keras_ssl.pretraining.recipe import SettingError

if TYPE_CHECKING:
    from keras_ssl.pretraining.checkpoints import Checkpoints

_SHARED_SECONDS = 90.0  # a network file system may show a new file to other hosts that late
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """The processes of a run. With one process every answer is its own, and nothing is sent.

    All processes must call the methods in the same order: each waits for all.

    Args:
        strategy: tf.distribute.Strategy.
        cluster: Cluster, or None for a run of one process.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None):
        self._strategy = strategy
        self._cluster = cluster if cluster is not None and len(cluster) > 1 else None
        self.index = 0 if cluster is None else cluster.index
        self.chief = self.index == 0
        self._exchange = tf.function(
            lambda number: strategy.run(gather, args=(number[None],)),
            input_signature=[tf.TensorSpec((), tf.int64)],
        )

    def gather(self, number: int) -> list[int]:
        """Returns the number that each process gives, in the order of the workers.

        Args:
            number: int in [-2^63, 2^63).
        """
        if self._cluster is None:
            return [number]
        numbers = self._exchange(tf.constant(number, tf.int64))
        of_replicas = self._strategy.experimental_local_results(numbers)[0].numpy().tolist()
        return of_replicas[:: len(of_replicas) // len(self._cluster)]

    def wait(self) -> None:
        """Returns when all processes are here."""
        self.gather(0)

    def leave(self) -> None:
        """Returns when all are done; a chief, who has written everything by then, does not mind who is gone."""
        with contextlib.suppress(*(LOST if self.chief else ())):
            self.wait()

    def check_same(self, what: str, text: str) -> None:
        """Checks that all processes give the same text.

        Raises:
            SettingError: If they do not; on all processes.
        """
        hashes = self.gather(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))
        for index, other in enumerate(hashes):
            if other != hashes[0]:
                raise SettingError(
                    f"Expected the same {what} on all workers. Received: others on worker {index} "
                    f"({self._cluster.workers[index]}) than on worker 0; start all with the same command."
                )

    def restore(self, checkpoints: Checkpoints) -> dict[str, Any] | None:
        """Restores on all processes the checkpoint that the chief takes; returns as `Checkpoints.restore` does."""
        restored = checkpoints.restore() if self.chief else None
        step = self.gather(-1 if restored is None else restored["step"])[0]
        if not self.chief and step >= 0:
            self.find(checkpoints.path(step))
            restored = checkpoints.restore()
        self.check_same("checkpoint", str(restored and restored["step"]))
        return restored

    def find(self, path: Path) -> None:
        """Waits until what the chief has written is seen here.

        Raises:
            SettingError: If it is not seen in time.
        """
        deadline = time.monotonic() + _SHARED_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise SettingError(
                    f"Expected a --workdir that all workers share. Received: {path.parent}, in which worker "
                    f"{self.index} does not see {path.name} of the chief; name a folder on a shared file system."
                )
            time.sleep(0.1)


def lost(error: tf.errors.OpError) -> str | None:
    """Returns the sentence for an error that means another worker is gone, else None."""
    cluster = read_cluster()
    text = str(error)
    if cluster is None or len(cluster) == 1:
        return None
    if not (isinstance(error, LOST) or "Collective ops is aborted" in text):
        return None
    named = {
        f"/job:{job}/task:{task}"
        for job, task in re.findall(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)", text)
    }
    others = [
        f"worker {index} ({cluster.workers[index]})"
        for index, task in enumerate(cluster.tasks)
        if task in named and index != cluster.index
    ]
    who = others[0] if len(others) == 1 else "another worker"
    return (
        f"Worker {cluster.index} lost the connection to {who}, which may say why. Start all workers again with the "
        "same command: they go on from the newest checkpoint."
    )
