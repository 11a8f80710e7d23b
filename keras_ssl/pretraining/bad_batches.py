"""Steps that were skipped because loss or gradient was not finite: kept for replay, and when they end a run."""

from __future__ import annotations

import collections
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_ssl import evaluation
from keras_ssl.data import SampleStream
from keras_ssl.pretraining.errors import TrainingError, writing

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run

FOLDER = "bad_batches"
IN_A_ROW = 3  # one bad batch is the data's fault, three in a row are the weights'
_WITH_IMAGES, _LARGEST = 20, 2**28  # how many batches keep their images, and up to how many bytes


class BadBatches:
    """Watches for skipped steps, writes their batches down, and ends the run after three in a row.

    A skipped step changed nothing but the counters (see `Trainer.guarded_step`), so what is saved is always good.
    float16 skips steps to find its loss scale: those are normal and not counted.

    Args:
        run: Run. Set up; its journal, reporter and checkpoints exist.
    """

    def __init__(self, run: Run):
        self.run = run
        self.in_a_row = 0
        # Reading a number waits for its step; an accelerator is kept busy by reading it one call later.
        self._lag = 0 if tf.config.list_logical_devices()[-1].device_type == "CPU" else 1
        self._waiting: collections.deque[tuple[int, dict[str, tf.Tensor]]] = collections.deque()

    def look(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        """Judges the steps of a call of the train function.

        Args:
            step: int. Steps done after the call.
            logs: dict of scalars, as the train function returns them.

        Raises:
            TrainingError: After three skipped steps in a row; a checkpoint is written first.
        """
        self._waiting.append((step, logs))
        last = step >= self.run.total_steps
        while len(self._waiting) > (0 if last else self._lag):
            self._judge(*self._waiting.popleft())

    def _judge(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        executions = self.run.compute.steps_per_execution
        count = round(float(logs["skipped"]))
        if not count or is_normal(logs):
            self.in_a_row = 0
            return
        self.in_a_row = self.in_a_row + count if count == executions else 0
        self._write(step, logs)
        if self.in_a_row >= IN_A_ROW:
            self._stop(step, logs)

    def _write(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        run, steps = self.run, range(step - self.run.compute.steps_per_execution + 1, step + 1)
        values = {name: float(logs[name]) for name in ("loss", "gradient_norm")}
        run.journal.write("event", step, event="skipped", **values)
        named = f"step {step}" if len(steps) == 1 else f"a step of {steps[0]} to {step}"
        where = run.workdir / FOLDER
        ordered = run.options.input_service is None
        kept = f"the batch is in {where}" if ordered else "its images came from the input service"
        run.reporter.line(
            f"skipped   {named}: loss {values['loss']:.4g}, gradient norm {values['gradient_norm']:.4g}; "
            f"nothing was changed, {kept}"
        )
        # A service hands batches out in order of arrival: which images a step saw is not known.
        if run.chief and ordered:
            with writing(where):
                write_batch(where, run.stream, steps, images=run.recipe.crops == "canvas")

    def _stop(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        run = self.run
        stats = {"nonfinite_steps": self.in_a_row, "loss": float(logs["loss"])}
        (finding,) = (f for f in evaluation.diagnose(stats) if f.name == "not_finite")
        run.journal.write(
            "finding",
            step,
            name=finding.name,
            severity=finding.severity,
            sentence=finding.sentence,
            remedy=finding.remedy,
        )
        now = int(tf.convert_to_tensor(run.model.step))
        since = step - self.in_a_row if now == step else now
        run.checkpoints.save(now, {**run.facts(now), "unchanged_since": since})
        raise TrainingError(
            f"{finding.sentence} {finding.remedy} {self.in_a_row} steps in a row were skipped up to step {step}, "
            f"the last good weights are saved: --init {run.workdir} begins another --workdir with them"
            + (
                f", `keras-ssl replay {run.workdir} {step}` shows where it begins."
                if run.options.input_service is None
                else "; without --input-service the batches would be kept for `keras-ssl replay`."
            )
        )


def is_normal(logs: dict[str, Any]) -> bool:
    """Returns whether a skipped step is float16 looking for its loss scale, which it can still lower."""
    return float(logs.get("loss_scale", 0.0)) > 1.0 and math.isfinite(float(logs["loss"]))


def batch_of_step(stream: SampleStream, step: int) -> dict[str, Any]:
    """Returns what a step was shown, read again.

    Args:
        stream: SampleStream.
        step: int. Number of the step, from 1 on, as in `log.jsonl`.

    Returns:
        dict of arrays: `images` uint8 `(batch, height, width, 3)`, `aspect` float32 `(batch,)`, `sample_id` and
        `position` int64 `(batch,)`.
    """
    first = (step - 1) * stream.global_batch_size
    positions = np.arange(first, first + stream.global_batch_size, dtype=np.int64)
    records = stream.records(tf.constant(positions)).numpy()
    images, aspect, sample_id = stream.source.read_batch(records, positions)
    return {"images": images, "aspect": aspect, "sample_id": sample_id, "position": positions}


def write_batch(folder: Path, stream: SampleStream, steps: range, *, images: bool = True) -> Path:
    """Writes `step-N.json`, and `step-N.npz` with the images unless there are too many of them.

    Args:
        folder: Path. Made if needed.
        stream: SampleStream.
        steps: range of the steps of one call, from 1 on; N is the last.
        images: bool. False where views are not made of the images on their canvas. Defaults to `True`.

    Returns:
        The JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step-{steps[-1]:012d}.json"
    batches = [batch_of_step(stream, step) for step in steps]
    size = sum(batch["images"].nbytes for batch in batches)
    content = {
        "steps": list(steps),
        "seed": stream.seed,
        "batches": [
            {name: batch[name].tolist() for name in ("position", "sample_id")} for batch in batches
        ],
        "images": None,
    }
    if images and size <= _LARGEST and len(list(folder.glob("*.npz"))) < _WITH_IMAGES:
        content["images"] = file.with_suffix(".npz").name
        arrays = {
            f"{name}_{step}": batch[name]
            for step, batch in zip(steps, batches, strict=True)
            for name in ("images", "aspect", "sample_id", "position")
        }
        np.savez_compressed(file.with_suffix(".npz"), **arrays)
    file.write_text(json.dumps(content) + "\n")
    return file
