"""Measures the memory of a training step: `python benchmarks/memory.py --json docs/benchmarks/memory.json`.

SimCLR with views made inside the step from uint8 images, one step, for several batches, micro-batches and with
activations kept or recomputed. Every row runs in a process of its own. `before_mb` is its resident memory when model
and images are there, `peak_mb` the most it had in the step, `step_mb` the difference: activations, gradients, optimizer
slots, embeddings and the compiled step itself. All in MiB.

`--rows large` is one step of a batch of 1024 images of 224 pixels on ResNet-18; that takes long.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SMALL = {"backbone": "resnet18", "size": 64}
ROWS = {
    "small": [
        SMALL | {"batch": batch, "micro": micro}
        for micro, batches in ((16, (64, 256, 512)), (32, (64, 256, 512)), (None, (64, 128, 256)))
        for batch in batches
    ],
    "recompute": [
        {"backbone": backbone, "size": size, "batch": batch, "micro": None, "recompute": recompute}
        for backbone, size, batch in (("resnet18", 64, 128), ("vit_tiny", 128, 64))
        for recompute in (False, True)
    ],
    "large": [{"backbone": "resnet18", "size": 224, "batch": 1024, "micro": 32}],
}
COLUMNS = ("backbone", "size", "batch", "micro", "recompute", "before_mb", "peak_mb", "step_mb")
SHOWN = (*COLUMNS, "seconds", "loss")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=["small", "recompute"])
    parser.add_argument("--json", metavar="FILE", help="file whose rows are added or replaced")
    parser.add_argument("--here", metavar="ROW", help="one row as JSON, in this process")
    return parser.parse_args(arguments)


def resident_mb(field: str) -> float:
    """Returns `VmRSS`, the memory of this process now, or `VmHWM`, its most so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def measure(backbone: str, size: int, batch: int, micro: int | None, recompute: bool = False):
    """Returns what one row measures: one step, the first."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_ssl import backbones, optimizers, views
    from keras_ssl.methods import RunInfo, SimCLR

    keras.utils.set_random_seed(0)
    settings = {"recompute": True} if recompute else {}
    if backbone.startswith("resnet"):
        settings["stem"] = "imagenet"  # also for 64 pixels
    else:
        settings["patch_size"] = 16 if size > 128 else 8
    network = backbones.build(backbone, image_size=size, **settings)
    model = SimCLR(network).compile(
        optimizers.LARS(0.3, weight_decay=1e-6),
        views=views.customize(views.get("simclr"), image_size=size),
        micro_batch=micro,
    )
    model.bind(RunInfo(10 * batch, 10, 10, batch))
    side = size * 8 // 7
    images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
    data = {"inputs": {"image": tf.constant(images)}, "position": tf.range(batch, dtype=tf.int64)}
    del images
    step = tf.function(model.train_step)
    before = resident_mb("VmRSS")
    begin = time.perf_counter()
    loss = float(step(data)["loss"])
    peak = resident_mb("VmHWM")
    return {
        "before_mb": round(before),
        "peak_mb": round(peak),
        "step_mb": round(peak - before),
        "inputs_mb": round(data["inputs"]["image"].numpy().nbytes / 2**20, 1),
        "embeddings_mb": round(2 * batch * model.projection_dim * 4 / 2**20, 2),
        "seconds": round(time.perf_counter() - begin),
        "loss": round(loss, 4),
    }


def versions() -> dict[str, object]:
    from importlib.metadata import version

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
    }


def save(path: Path, row: dict[str, object]) -> None:
    """Adds a row to the file, in the place of an older one of the same settings."""

    def settings(row: dict[str, object]) -> list[object]:
        return [row[name] for name in COLUMNS[:5]]

    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [other for other in old if settings(other) != settings(row)] + [row]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"versions": {json.dumps(versions())},\n "rows": [\n{lines}\n]}}\n')


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.here:
        print(json.dumps(measure(**json.loads(options.here))))
        return
    print("".join(f"{title:>11}" for title in SHOWN))
    for settings in [row for name in options.rows for row in ROWS[name]]:
        command = [sys.executable, __file__, "--here", json.dumps(settings)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = {"recompute": False, **settings, **json.loads(done.stdout.splitlines()[-1])}
        print("".join(f"{row[title]!s:>11}" for title in SHOWN), flush=True)
        if options.json:
            save(Path(options.json), row)


if __name__ == "__main__":
    main()
