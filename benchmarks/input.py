"""Measures whether input starves the step: `python benchmarks/input.py --json docs/benchmarks/input.json`.

The real pipeline (records, views made on the host, prefetch) feeds the train function, against one ready-made batch of
the same views given again and again. Both sides share model, program and process and are timed in turns; `slower` is
the median over the turns of time with the pipeline / time without it, less 1, and `cpu_slower` the same of the CPU time
of all threads, which is the cost of making the batches and hardly changes on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", nargs="*", default=["simclr_laptop", "swav_laptop"])
    parser.add_argument("--backbone", help="another than the recipe's")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6, help="steps in a turn [6]")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side [5]")
    parser.add_argument("--json", metavar="FILE", help="file to write the rows to")
    return parser.parse_args(arguments)


def measure(recipe_name: str, flags: argparse.Namespace) -> dict:
    """Returns the row of one recipe."""
    import numpy as np
    import tensorflow as tf

    from keras_ssl.pretraining.build import build_batches
    from keras_ssl.pretraining.recipe import resolve
    from keras_ssl.pretraining.run import Run

    images = np.random.default_rng(0).integers(0, 256, (8 * flags.batch_size, 32, 32, 3), np.uint8)
    recipe, options = resolve(
        recipe=recipe_name,
        data="array",
        batch_size=flags.batch_size,
        backbone=flags.backbone,
        epochs=1000,
        dry_run=True,
    )
    run = Run(recipe, options, arrays=images)
    train = run.model.make_train_function()
    pipeline = build_batches(run.stream, run.model, run.strategy, start_step=0, views_on_host=True)
    one = next(pipeline)
    ready = iter(
        run.strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(one).repeat())
    )

    def turn(batches) -> tuple[float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(flags.steps):
            logs = train(batches)
        float(logs["loss"])
        return time.perf_counter() - start, time.process_time() - cpu

    turn(ready), turn(pipeline)
    found = [(turn(ready), turn(pipeline)) for _ in range(flags.turns)]
    wall = [fed[0] / still[0] for still, fed in found]
    cpu = [fed[1] / still[1] for still, fed in found]
    step_ms = 1000 * statistics.median(still[0] for still, _ in found) / flags.steps
    return {
        "recipe": recipe_name,
        "backbone": recipe.backbone,
        "batch": flags.batch_size,
        "step_ms": round(step_ms, 1),
        "slower": round(statistics.median(wall) - 1, 3),
        "cpu_slower": round(statistics.median(cpu) - 1, 3),
        "turns": flags.turns,
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parse(arguments)
    import keras
    import tensorflow as tf

    rows = [measure(name, flags) for name in flags.recipe]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if flags.json:
        where = {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": round(os.getloadavg()[0], 1),
            "date": time.strftime("%Y-%m-%d"),
        }
        Path(flags.json).write_text(json.dumps({"environment": where, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
