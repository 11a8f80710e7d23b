"""One pre-training run, from a recipe to an exported encoder."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.data import SampleStream, service
from keras_ssl.distribution import create_strategy, planned_replicas, read_cluster
from keras_ssl.methods import SSLModel
from keras_ssl.pretraining import build, combinations, compute, dry_run, header, workdir
from keras_ssl.pretraining.bad_batches import BadBatches
from keras_ssl.pretraining.checkpoints import Checkpoints
from keras_ssl.pretraining.console import Meter, Reporter, duration
from keras_ssl.pretraining.errors import TrainingError
from keras_ssl.pretraining.finish import export_run, initialize
from keras_ssl.pretraining.journal import Journal
from keras_ssl.pretraining.monitor import Monitor
from keras_ssl.pretraining.recipe import Recipe, RunOptions, SettingError, resolve
from keras_ssl.pretraining.signals import stop_signals
from keras_ssl.pretraining.workers import Workers, lost

__all__ = ["Run", "RunResult", "TrainingError", "pretrain"]


@dataclasses.dataclass
class RunResult:
    """What a run leaves.

    Attributes:
        workdir: Path. The run folder, or None for a dry run.
        model: SSLModel. The trained method.
        encoder: keras.Model. The exported encoder: images in [0, 1] to a dict with "features".
        step: int. Steps done.
        stopped: int. Number of the signal that stopped the run early, or 0.
        monitor: dict. The last look of the monitor; only the chief of several workers looks.
    """

    workdir: Path | None
    model: SSLModel
    encoder: keras.Model
    step: int
    stopped: int = 0
    monitor: dict[str, float] = dataclasses.field(default_factory=dict)


def pretrain(**settings: Any) -> RunResult:
    """Pre-trains an encoder; the same as the command of this name.

    The same call on the same `workdir` resumes at the exact sample.

    Args:
        **settings: Fields of `Recipe` and `RunOptions`, `recipe` for a named one, and settings of the method, e.g.
            `pretrain(method="simclr", recipe="simclr_cifar", data="photos/", epochs=10, temperature=0.2)`.
            `data` may also be an array of images or a pair (images, labels).

    Returns:
        RunResult.

    Raises:
        SettingError: If a setting is wrong.
        TrainingError: If the run cannot go on.
    """
    arrays = None
    if "data" in settings and not isinstance(settings["data"], str | Path):
        arrays, settings["data"] = settings["data"], "array"
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    recipe, options = resolve(**settings)
    with build.precision_scope(recipe.precision):
        try:
            return Run(recipe, options, arrays=arrays).execute()
        except tf.errors.OpError as error:
            sentence = lost(error)
            if sentence is None:
                raise
            raise TrainingError(sentence) from error


class Run:
    """A run that is set up and can be executed once.

    Args:
        recipe: Recipe.
        options: RunOptions.
        arrays: images or (images, labels), when the data are arrays and not a name. Defaults to `None`.
    """

    def __init__(self, recipe: Recipe, options: RunOptions, *, arrays: Any = None):
        build.check_settings(recipe)
        if options.input_service is not None:
            service.check_address(options.input_service)
        self.recipe, self.options = recipe, options
        combinations.check(recipe, options, planned_replicas(options.strategy, options.replicas))
        self.workdir = None if options.dry_run else workdir.claim(recipe, options.workdir)
        self.cluster = read_cluster() if options.strategy == "multiworker" else None
        self._say_who_is_expected()
        self.strategy = create_strategy(options.strategy, replicas=options.replicas)
        self.replicas = self.strategy.num_replicas_in_sync
        combinations.check(recipe, options, self.replicas)
        self.workers = Workers(self.strategy, self.cluster)
        self.chief = self.workers.chief
        decisive = (recipe, options.steps_per_execution, options.micro_batch, options.dry_run)
        self.workers.check_same("settings", str(decisive))
        if self.chief and self.workdir is not None:
            workdir.check_unlocked(self.workdir)
        keras.utils.set_random_seed(recipe.seed)
        self.stream = self._open_stream(arrays)
        self.workers.check_same("data", self.stream.source.fingerprint())
        self.compute = compute.choose(
            options,
            device=compute.device_of(self.strategy),
            steps_per_epoch=self.stream.steps_per_epoch,
            exact=recipe.crops == "exact",
        )
        with self.strategy.scope():
            self.model = build.build_model(
                recipe,
                self.stream,
                jit=self.compute.jit,
                steps_per_execution=self.compute.steps_per_execution,
                micro_batch=options.micro_batch,
            )
            if recipe.init is not None:
                initialize(self.model, recipe.init)
        self.total_steps = recipe.epochs * self.stream.steps_per_epoch
        self.asked_to_stop, self.stopped, self.extended_from = 0, 0, None
        self.recent: dict[str, float] = {}

    # The parts -----------------------------------------------------------------------------------------------

    def _say_who_is_expected(self) -> None:
        if self.cluster is not None and not self.options.quiet:
            print(f"worker {self.cluster.index} of {', '.join(self.cluster.workers)}", flush=True)

    def _open_stream(self, arrays: Any) -> SampleStream:
        name = "quarantine.jsonl" if self.chief else f"quarantine-{self.workers.index}.jsonl"
        quarantine = self.workdir / name if self.workdir else None
        return build.open_stream(self.recipe, arrays=arrays, quarantine=quarantine)

    # The run -------------------------------------------------------------------------------------------------

    def execute(self) -> RunResult:
        """Trains to the end, or until a signal; resumes when the folder holds a checkpoint."""
        if self.options.dry_run:
            return dry_run.execute(self)
        with workdir.locked(self.workdir) if self.chief else contextlib.nullcontext():
            return self._execute()

    def _execute(self) -> RunResult:
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            [*self.model.variables, *self.model.optimizer.variables],
            self.recipe.identity(),
            recipe=self.recipe.to_dict(),
            writer=self.chief,
        )
        restored = self.workers.restore(self.checkpoints)
        step = restored["step"] if restored else 0
        if step % self.compute.steps_per_execution:
            raise SettingError(
                f"Expected --steps-per-execution to divide the {step} steps of the checkpoint. "
                f"Received: {self.compute.steps_per_execution}; 1 always does."
            )
        if self.chief:
            self.extended_from = workdir.write_recipe(self.workdir, self.recipe, self.stream.source)
        self.workers.wait()
        self.workers.find(self.workdir / "recipe.json")
        first = step if restored else -1  # without a checkpoint all is done again, step 0 too
        self.journal = Journal(self.workdir, first, writer=self.chief)
        self.reporter = Reporter(self.total_steps, step, self.options.quiet or not self.chief)
        self.monitor, self.bad_batches = Monitor(self), BadBatches(self)
        try:
            for line in header.lines(self, restored):
                self.reporter.line(line)
            event = "resume" if restored else "start"
            self.journal.write(
                "event",
                step,
                event=event,
                micro_batch=self.options.micro_batch,
                compute=header.compute(self),
            )
            with stop_signals(self._ask_to_stop):
                step = self._train(step)
        finally:
            self.reporter.close()
            self.journal.close()
        encoder = self.model.encoders()["image"]
        if not self.stopped and self.chief:
            export_run(self, step)
        self.workers.leave()
        self._last_line(step)
        return RunResult(self.workdir, self.model, encoder, step, self.stopped, self.monitor.last)

    def _train(self, step: int) -> int:
        """Runs the steps from `step` on; returns the steps done."""
        per_epoch, executions = self.stream.steps_per_epoch, self.compute.steps_per_execution
        save_every = self.options.save_every or per_epoch
        log_every = self.options.log_every or max(1, per_epoch // 20)
        self.meter = Meter(self.total_steps, self.recipe.batch_size, step)
        if step == 0:
            self.monitor.show_views()
            self.monitor.look(0)
        elif step % per_epoch == 0 and not self.journal.wrote("monitor", step):
            self.monitor.end_of_epoch(step)  # killed after the checkpoint, before this look
        self.meter.skip()
        train = self.model.make_train_function()
        batches = None
        while step < self.total_steps and not self.stopped:
            if batches is None:
                batches = self._batches(step)
            logs = self._step(train, batches)
            self.stopped = max(self.workers.gather(self.asked_to_stop))
            before, step = step, step + executions
            if step // log_every > before // log_every or step == self.total_steps:
                self._log(step, logs)
            self.bad_batches.look(step, logs)
            last = step >= self.total_steps or self.stopped
            if step // save_every > before // save_every or last:
                self._save(step, logs)
            if step % per_epoch == 0 and not self.stopped:
                self.monitor.end_of_epoch(step)
        return step

    def _batches(self, step: int) -> Iterator[Any]:
        return build.build_batches(
            self.stream,
            self.model,
            self.strategy,
            start_step=step,
            views_on_host=self.compute.views_on_host,
            input_service=self.options.input_service,
            crops=self.recipe.crops,
        )

    def _step(self, train: Any, batches: Iterator[Any]) -> dict[str, tf.Tensor]:
        try:
            with service.patience(self.options.input_service, sys.stderr.write):
                return train(batches)
        except tf.errors.OpError as error:
            cause = self.stream.source.error or service.remote_cause(error)
            if cause is not None:
                raise cause from error
            if "OSError: [Errno" in str(error):  # such as a full disk for quarantine.jsonl
                words = str(error).split("OSError: ", 1)[1].splitlines()[0]
                raise TrainingError(f"Expected the next batch. Received: {words}.") from error
            raise

    def _log(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        values = self.recent = {name: float(value) for name, value in logs.items()}
        rate = self.meter.rate(step)
        epoch = step / self.stream.steps_per_epoch
        self.journal.write(
            "train", step, epoch=round(epoch, 4), images_per_second=round(rate, 1), **values
        )
        left = duration(self.meter.remaining(step))
        self.reporter.progress(
            step,
            f"epoch {epoch:.2f}/{self.recipe.epochs}  step {step}/{self.total_steps}  loss {values['loss']:.4f}  "
            f"{rate:.0f} images/s  left {left}",
            last=step == self.total_steps,
        )

    def _save(self, step: int, logs: dict[str, tf.Tensor]) -> None:
        self.checkpoints.save(step, self.facts(step))

    def facts(self, step: int) -> dict[str, int]:
        """Returns what a checkpoint says of the data, enough to build the model again without them."""
        return {
            "position": step * self.recipe.batch_size,
            "num_samples": self.stream.source.num_samples,
            "steps_per_epoch": self.stream.steps_per_epoch,
        }

    def _ask_to_stop(self, number: int) -> None:
        """Ends the run after the current step, with a checkpoint."""
        self.asked_to_stop = number

    def _last_line(self, step: int) -> None:
        if self.stopped:
            name = signal.Signals(self.stopped).name
            text = f"Stopped by {name} after step {step} of {self.total_steps}; saved. The same command goes on."
        else:
            where = self.workdir / "encoder"
            text = f"Done: {where} holds the {self.model.exported}'s encoder of step {step}."
        broken = getattr(self.stream.source, "num_broken", 0)
        if broken:
            listed = self.workdir / "quarantine.jsonl"
            self.reporter.line(f"{broken} broken images were replaced; {listed} lists them.")
        self.reporter.line(text, always=self.chief)
