"""Twenty steps without writing anything, then what the whole run would take."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from keras_ssl.pretraining import header
from keras_ssl.pretraining.console import Reporter, duration

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run, RunResult

STEPS = 20


def execute(run: Run) -> RunResult:
    """Runs twenty steps and prints time, memory and disk of the whole run."""
    from keras_ssl.pretraining.run import RunResult

    reporter = Reporter(STEPS, 0, run.options.quiet or not run.chief)
    for line in header.lines(run, None):
        reporter.line(line)
    train, batches = run.model.make_train_function(), run._batches(0)
    executions = run.compute.steps_per_execution
    logs = run._step(train, batches)  # compiles
    begin, step = time.monotonic(), executions
    while step < STEPS + executions:
        logs = run._step(train, batches)
        step += executions
    loss = float(logs["loss"])
    seconds = (time.monotonic() - begin) / (step - executions)
    reporter.close()
    variables = [*run.model.variables, *run.model.optimizer.variables]
    size = sum(variable.dtype_size for variable in map(_Sized, variables))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    reporter.line(
        f"dry run: {step} steps, loss {loss:.4f}, {seconds:.3f} s a step, "
        f"{run.recipe.batch_size / seconds:.0f} images/s; the whole run of {run.total_steps} steps would take "
        f"{duration(seconds * run.total_steps)}, {peak / 1e9:.1f} GB of memory at its peak so far and "
        f"{3 * size / 1e6:.0f} MB of disk for two checkpoints and the one being written. Nothing was written.",
        always=run.chief,
    )
    return RunResult(None, run.model, run.model.encoders()["image"], step)


class _Sized:
    """A variable with its size in bytes."""

    def __init__(self, variable: object):
        self.dtype_size = int(
            variable.value.dtype.size * max(1, variable.value.shape.num_elements())
        )
