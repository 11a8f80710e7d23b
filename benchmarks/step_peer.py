"""Measures a training step beside bare TensorFlow and PyTorch: `python benchmarks/step_peer.py --peer-python PATH`.

The step is SimCLR's: a ResNet-18 with the small-image stem at a quarter of its width and at full width, a projector,
NT-Xent over both views of a batch of 256, and plain SGD, on ready-made random views. Three sides do the same:

- `ours`: `keras_ssl.methods.SimCLR` and its train function;
- `tensorflow`: the same network written with `tf.nn` alone, one `tf.function`, no Keras;
- `pytorch`: the same network in eager PyTorch, channels-last, if `--peer-python` names an interpreter that has it.

Each measurement is a process of its own and the sides take turns. `per_core` divides images by the CPU time of all
threads and hardly changes on a busy machine; `per_second` is what a person waits. `share` is the step's arithmetic
(convolutions and dense layers; forward once, backward twice) per CPU second over what one large float32 matrix product
reaches per CPU second in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from step_sides import SIDES, arithmetic  # noqa: E402


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", nargs="*", type=float, default=[0.25, 1.0], help="[0.25 1.0]")
    parser.add_argument("--batch-size", type=int, default=256, help="images in a step [256]")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of a process [3]")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side [3]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="[all cores]")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter that has PyTorch")
    parser.add_argument("--json", metavar="FILE", help="file to write the rows to")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def product_rate(side: str) -> float:
    """Returns the operations of one large matrix product per CPU second."""
    n = 1536
    if side == "pytorch":
        import torch

        a = torch.rand(n, n)
        run = lambda: (a @ a)[0, 0].item()  # noqa: E731
    else:
        import tensorflow as tf

        a = tf.random.uniform((n, n))
        run = lambda: float(tf.matmul(a, a)[0, 0])  # noqa: E731
    return max(2 * n**3 / timed(run)[1] for _ in range(8))


def timed(run) -> tuple[float, float]:
    """Returns seconds waited and CPU seconds of all threads."""
    begin, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - begin, time.process_time() - used


def measure(options: argparse.Namespace) -> dict[str, float | str]:
    """Returns one measurement, made in this process."""
    width, batch = options.width[0], options.batch_size
    if options.side == "pytorch":
        import torch as library

        library.set_num_threads(options.threads)
    else:
        import tensorflow as library

        library.config.threading.set_intra_op_parallelism_threads(options.threads)
    step = SIDES[options.side](width, batch)
    losses = [step(), step()]
    if not all(loss > 0 for loss in losses):
        raise RuntimeError(f"Expected a positive loss. Received: {losses}")
    spent = [timed(step) for _ in range(options.steps)]
    waited, used = (statistics.median(column) for column in zip(*spent, strict=True))
    rate = arithmetic(width) * batch / used
    return {
        "version": library.__version__.split("+")[0],
        "per_second": batch / waited,
        "per_core": batch / used,
        "share": rate / product_rate(options.side),
    }


def in_own_process(side: str, width: float, options: argparse.Namespace) -> dict:
    python = options.peer_python if side == "pytorch" else sys.executable
    numbers = {
        "side": side,
        "width": width,
        "batch-size": options.batch_size,
        "steps": options.steps,
        "threads": options.threads,
    }
    flags = [word for flag, value in numbers.items() for word in (f"--{flag}", str(value))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [python, __file__, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> list[dict]:
    options = parse(arguments)
    if options.side:
        print(json.dumps(measure(options)))
        return []
    sides = [side for side in SIDES if side != "pytorch" or options.peer_python]
    columns = ("width", "side", "version", "per_second", "per_core", "ratio", "share")
    print("".join(f"{title:>12}" for title in columns))
    rows = []
    for width in options.width:
        seen = [
            {side: in_own_process(side, width, options) for side in sides}
            for _ in range(options.rounds)
        ]
        for side in sides:
            numbers = {
                key: statistics.median(turn[side][key] for turn in seen)
                for key in ("per_second", "per_core", "share")
            }
            ratios = [turn["ours"]["per_core"] / turn[side]["per_core"] for turn in seen]
            row = {"width": width, "side": side, "version": seen[0][side]["version"]}
            row |= {key: round(value, 3 if key == "share" else 1) for key, value in numbers.items()}
            row["ratio"] = round(statistics.median(ratios), 2)
            rows.append(row)
            print("".join(f"{row[title]:>12}" for title in columns), flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": options.threads,
        "load": round(os.getloadavg()[0], 1),
        "batch_size": options.batch_size,
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(
            json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n"
        )
    return rows


if __name__ == "__main__":
    main()
