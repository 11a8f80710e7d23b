"""`keras-ssl doctor`: whether this machine can train, each thing tried for real.

What is wrong with a run that trains is another question: `keras_ssl.evaluation.diagnose` answers it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import keras_ssl
from keras_ssl import env
from keras_ssl.pretraining.recipe import PRECISIONS

# Oldest and newest version that is supported, as in setup.cfg; None where there is no newest.
SUPPORTED = {
    "Python": ((3, 11), (3, 13)),
    "TensorFlow": ((2, 19), (2, 21)),
    "Keras": ((3, 13), None),
}
_ROOM = 2e9  # bytes of disk and memory below which a run is likely to end early
_SLOW = 1.5  # times the seconds of float32 from which a precision is called slow


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: str. What, in a word.
        status: `"ok"`, `"note"` for what should be known, `"broken"` for what does not work.
        text: str. What was found.
    """

    name: str
    status: Literal["ok", "note", "broken"]
    text: str


def doctor(*, as_json: bool = False) -> int:
    """Looks at versions, devices, precisions, disk and memory, trains a few steps, and prints it on one screen.

    Args:
        as_json: bool. Prints {"usable", "seconds", "checks"} instead. Defaults to `False`.

    Returns:
        The exit code: 0 when a run can be started, 1 when something is broken.
    """
    begin = time.monotonic()
    with env.quiet_stderr():  # notes of drivers that are not there; errors are in the checks
        checks = examine()
    seconds = round(time.monotonic() - begin, 1)
    broken = [check.name for check in checks if check.status == "broken"]
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"usable": not broken, "seconds": seconds, "checks": listed}, indent=2))
        return int(bool(broken))
    print(f"keras_ssl {keras_ssl.__version__} on {platform.system()} {platform.machine()}")
    for check in checks:
        print(f"{check.status:7s} {check.name:10s} {check.text}")
    verdict = f"Broken: {', '.join(broken)}." if broken else "Runs can be started here."
    print(f"{verdict} ({len(checks)} checks, {seconds:.0f} s)")
    return int(bool(broken))


def examine() -> list[Check]:
    """Returns all checks; a check that raises is broken and does not end the others."""
    checks = [*_guarded("Python", _python), *_guarded("packages", _packages)]
    checks += _guarded("TensorFlow", _tensorflow)
    if checks[-1].status != "broken":  # without it nothing below can be tried
        for name, look in (
            ("devices", _devices),
            ("precision", _precisions),
            ("XLA", _xla),
            ("self-test", _self_test),
        ):
            checks += _guarded(name, look)
    return [*checks, *_guarded("disk", _disk), *_guarded("memory", _memory)]


def judge_version(name: str, version: str) -> Check:
    """Returns whether a version is one of those that are supported."""
    oldest, newest = SUPPORTED[name]
    found = tuple(int(part) for part in version.split(".")[:2])
    span = f"{_dotted(oldest)} {f'to {_dotted(newest)}' if newest else 'or newer'}"
    if found < oldest:
        return Check(name, "broken", f"{version} is too old; install {span}")
    if newest and found > newest:
        return Check(name, "note", f"{version} is newer than what is tested, {span}")
    return Check(name, "ok", f"{version} ({span})")


# The looks ---------------------------------------------------------------------------------------------------


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    found = []
    try:
        found.extend(look())
    except Exception as error:  # whatever it is, it is the finding
        words = str(error).strip().splitlines() or ["no message"]
        found.append(Check(name, "broken", f"{type(error).__name__}: {words[0][:200]}"))
    return found


def _python() -> Iterator[Check]:
    yield judge_version("Python", platform.python_version())


def _packages() -> Iterator[Check]:
    names = ("numpy", "pillow", "scikit-learn", "tensorboard", "matplotlib", "tensorflow-datasets")
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Check("packages", "broken", f"{', '.join(missing)} not installed: pip install them")
    yield Check("packages", "ok", ", ".join(versions))
    unwanted = {
        "tensorflow_addons": "cannot be imported next to Keras 3; nothing here needs it",
        "keras_cv": "is no longer developed; only --backbone keras_cv:NAME uses it",
    }
    for module, why in unwanted.items():
        if importlib.util.find_spec(module) is not None:
            yield Check("packages", "note", f"{module} is installed: it {why}")


def _tensorflow() -> Iterator[Check]:
    env.import_tensorflow_quietly()
    import keras
    import tensorflow as tf

    yield judge_version("Keras", keras.__version__)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        yield Check("Keras", "broken", f"backend {backend}; unset KERAS_BACKEND or set tensorflow")
    yield judge_version("TensorFlow", tf.__version__)


def _devices() -> Iterator[Check]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    names = ", ".join(str(detail.get("device_name", "GPU")) for detail in details)
    yield Check("devices", "ok", f"{os.cpu_count()} CPU cores; {names or 'no GPU'}")
    if not gpus:
        yield Check("devices", "note", "several CPU replicas (--strategy mirrored) need --jit off")
        if shutil.which("nvidia-smi"):
            text = "there is an NVIDIA driver, but TensorFlow sees no GPU: pip install '.[cuda]'"
            yield Check("devices", "note", text)


def _precisions() -> Iterator[Check]:
    seconds, failed = {}, {}
    for name in PRECISIONS:
        try:
            seconds[name] = _time_step(name)
        except Exception as error:  # a device may lack one of them
            failed[name] = str(error).splitlines()[0][:80]
    if "float32" in failed:
        yield Check("precision", "broken", f"float32: {failed['float32']}")
        return
    shares = {name: value / seconds["float32"] for name, value in seconds.items()}
    text = ", ".join(f"{name} {share:.1f}x" for name, share in shares.items())
    yield Check("precision", "ok", f"time of a small step: {text}")
    slow = [name for name in ("mixed_bfloat16", "mixed_float16") if shares.get(name, 0) > _SLOW]
    if slow:
        yield Check("precision", "note", f"slower than float32 here: {', '.join(slow)}")
    for name, reason in failed.items():
        yield Check("precision", "note", f"{name} does not work here: {reason}")


def _xla() -> Iterator[Check]:
    import tensorflow as tf

    try:
        _time_step("float32", jit=True)
    except Exception as error:  # runs can do without
        yield Check("XLA", "note", f"does not compile, use --jit off: {str(error)[:120]}")
        return
    on = bool(tf.config.list_physical_devices("GPU"))
    yield Check(
        "XLA", "ok", f"compiles; --jit auto turns it {'on' if on else 'off, this is a CPU'}"
    )


def _time_step(precision: str, *, jit: bool = False) -> float:
    """Returns the seconds of a convolution with its gradient, after the first call."""
    import keras
    import tensorflow as tf

    from keras_ssl.pretraining import build

    with build.precision_scope(precision):
        layer = keras.layers.Conv2D(32, 3, padding="same")
        layer.build((None, None, None, 32))

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(images)))
        return tf.reduce_sum(tape.gradient(loss, layer.kernel.value))

    images, times = tf.ones((8, 32, 32, 32), layer.compute_dtype), []
    for _ in range(6):
        begin = time.monotonic()
        result = float(step(images))
        times.append(time.monotonic() - begin)
    if not abs(result) < float("inf"):
        raise ValueError(f"the gradient is {result}")
    return min(times[1:])  # of a busy machine the least disturbed one


def _self_test() -> Iterator[Check]:
    """Trains SimCLR for four steps on the digits of scikit-learn."""
    import numpy as np

    from keras_ssl import backbones, data, methods, optimizers

    images, _, _ = data.load_digits().read_batch(np.arange(64))
    shape = {"blocks": (1, 1), "filters": (8, 16), "bottleneck": False, "stem": "cifar"}
    backbone = backbones.ResNet(image_size=16, **shape)
    model = methods.get_method("simclr")(backbone, temperature=0.5, projection_dim=16)
    before = [weight.numpy() for weight in backbone.trainable_variables]
    model.compile(optimizers.SGD(0.05))
    begin = time.monotonic()
    history = model.fit(images[:, ::2, ::2], epochs=2, batch_size=32, verbose=0).history
    losses = history["loss"]
    moved = [
        np.any(b != w.numpy()) for b, w in zip(before, backbone.trainable_variables, strict=True)
    ]
    if not np.isfinite(losses).all() or not all(moved):
        raise ValueError(
            f"four steps of SimCLR on digits gave the losses {losses}, weights moved: {all(moved)}"
        )
    seconds = time.monotonic() - begin
    yield Check(
        "self-test", "ok", f"4 steps of SimCLR on digits in {seconds:.1f} s, loss {losses[-1]:.2f}"
    )


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    yield _room("disk", free, f"{free / 1e9:.1f} GB free in {Path.cwd()}")


def _memory() -> Iterator[Check]:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known = Path("/proc/meminfo")  # counts what the system can give back too
    if known.is_file():
        lines = dict(line.split(":", 1) for line in known.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _container_limit()
    text = f"{free / 1e9:.1f} GB free" + (
        f", {limit / 1e9:.1f} GB in this container" if limit else ""
    )
    yield _room("memory", min(free, limit or free), text)


def _container_limit() -> int | None:
    try:
        group = Path("/sys/fs/cgroup")
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def _room(name: str, free: float, text: str) -> Check:
    return Check(
        name, "ok" if free >= _ROOM else "note", text + ("" if free >= _ROOM else ": little")
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
