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

STAGES = (64, 128, 256, 512)
PROJECTION, TEMPERATURE, RATE, SIDE = 128, 0.5, 1e-3, 32


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


def channels(width: float) -> list[int]:
    return [round(width * count) for count in STAGES]


def blocks(width: float) -> list[tuple[int, int, int]]:
    """Returns (channels in, channels out, stride) of the eight basic blocks."""
    rows, before = [], channels(width)[0]
    for stage, count in enumerate(channels(width)):
        rows += [(before, count, 2 if stage else 1), (count, count, 1)]
        before = count
    return rows


def arithmetic(width: float) -> float:
    """Returns the floating-point operations of a training step for one image, both views."""
    side, total = SIDE, 9 * 3 * channels(width)[0] * SIDE**2
    for count_in, count_out, stride in blocks(width):
        side //= stride
        total += 9 * count_out * (count_in + count_out) * side**2
        total += count_in * count_out * side**2 * (stride != 1 or count_in != count_out)
    last = channels(width)[-1]
    return 2 * 2 * 3 * (total + last * last + last * PROJECTION)


# The three sides: each returns a function that takes one step and waits for it ----------------------------------


def ours(width: float, batch: int):
    import keras
    import tensorflow as tf

    from keras_ssl import backbones
    from keras_ssl.methods import RunInfo, SimCLR
    from keras_ssl.optimizers import SGD

    keras.utils.set_random_seed(0)
    model = SimCLR(
        backbones.build("resnet18", image_size=SIDE, width=width), temperature=TEMPERATURE
    )
    model.compile(SGD(RATE, momentum=0.0))
    model.bind(RunInfo(batch * 10, 10, 100, batch))
    keys = tf.zeros((batch, 2), tf.uint32)
    views = {"global": tf.random.uniform((2, batch, SIDE, SIDE, 3)), "keys": keys}
    batches = iter(tf.data.Dataset.from_tensors({"views": views}).repeat())
    train = model.make_train_function()
    return lambda: float(train(batches)["loss"])


def tensorflow(width: float, batch: int):
    import tensorflow as tf

    variables: list[tf.Variable] = []

    def weight(shape: tuple[int, ...], start: str) -> tf.Variable:
        deviation = (2.0 / max(1, shape[-1] * (shape[0] ** 2 if len(shape) == 4 else 1))) ** 0.5
        value = {"ones": tf.ones, "zeros": tf.zeros}.get(
            start, lambda shape: tf.random.normal(shape, stddev=deviation)
        )(shape)
        variables.append(tf.Variable(value))
        return variables[-1]

    def norm(count: int):
        gamma, beta = weight((count,), "ones"), weight((count,), "zeros")
        means = tf.Variable(tf.zeros(count)), tf.Variable(tf.ones(count))

        def apply(x):
            four = x if x.shape.rank == 4 else x[:, None, None]
            y, *now = tf.raw_ops.FusedBatchNormV3(
                x=four, scale=gamma, offset=beta, mean=(), variance=(), epsilon=1e-5
            )[:3]
            for old, new in zip(means, now, strict=True):
                old.assign_sub((old - new) * 0.1)
            return y if x.shape.rank == 4 else y[:, 0, 0]

        return apply

    def conv(size: int, count_in: int, count_out: int, stride: int):
        kernel = weight((size, size, count_in, count_out), "normal")
        around = [[0, 0], *[[size // 2] * 2] * 2, [0, 0]]
        return lambda x: tf.nn.conv2d(x, kernel, stride, around if stride > 1 else "SAME")

    first = channels(width)[0]
    stem = conv(3, 3, first, 1), norm(first)
    chain = []
    for count_in, count_out, stride in blocks(width):
        body = [conv(3, count_in, count_out, stride), norm(count_out)]
        body += [conv(3, count_out, count_out, 1), norm(count_out)]
        cut = None
        if stride != 1 or count_in != count_out:
            cut = conv(1, count_in, count_out, stride), norm(count_out)
        chain.append((body, cut))
    last = channels(width)[-1]
    dense = weight((last, last), "normal"), weight((last, PROJECTION), "normal")
    heads = norm(last), norm(PROJECTION)

    def network(x):
        x = tf.nn.relu(stem[1](stem[0](x)))
        for (conv_a, norm_a, conv_b, norm_b), cut in chain:
            rest = x if cut is None else cut[1](cut[0](x))
            x = tf.nn.relu(norm_b(conv_b(tf.nn.relu(norm_a(conv_a(x))))) + rest)
        h = tf.nn.relu(heads[0](tf.reduce_mean(x, (1, 2)) @ dense[0]))
        return heads[1](h @ dense[1])

    views = tf.random.uniform((2 * batch, SIDE, SIDE, 3))
    partner = tf.roll(tf.range(2 * batch), batch, 0)

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(network(images), -1)
            logits = tf.matmul(z, z, transpose_b=True) / TEMPERATURE
            logits = tf.linalg.set_diag(logits, tf.fill([2 * batch], -1e9))
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(partner, logits)
            loss = tf.reduce_mean(loss)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)
        return loss

    return lambda: float(step(views))


def pytorch(width: float, batch: int):
    import torch
    from torch import nn
    from torch.nn import functional

    def conv(size: int, count_in: int, count_out: int, stride: int):
        return nn.Conv2d(count_in, count_out, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, count_in: int, count_out: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                conv(3, count_in, count_out, stride),
                nn.BatchNorm2d(count_out),
                nn.ReLU(inplace=True),
                conv(3, count_out, count_out, 1),
                nn.BatchNorm2d(count_out),
            )
            self.cut = nn.Identity()
            if stride != 1 or count_in != count_out:
                self.cut = nn.Sequential(
                    conv(1, count_in, count_out, stride), nn.BatchNorm2d(count_out)
                )

        def forward(self, x):
            return functional.relu(self.body(x) + self.cut(x), inplace=True)

    first, last = channels(width)[0], channels(width)[-1]
    network = nn.Sequential(
        conv(3, 3, first, 1),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        *(Block(*row) for row in blocks(width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, last, bias=False),
        nn.BatchNorm1d(last),
        nn.ReLU(inplace=True),
        nn.Linear(last, PROJECTION, bias=False),
        nn.BatchNorm1d(PROJECTION),
    ).to(memory_format=torch.channels_last)
    views = torch.rand(2 * batch, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    partner = torch.arange(2 * batch).roll(batch)
    optimizer = torch.optim.SGD(network.parameters(), RATE)

    def step() -> float:
        optimizer.zero_grad()
        z = functional.normalize(network(views))
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-1e9)
        loss = functional.cross_entropy(logits, partner)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SIDES = {"ours": ours, "tensorflow": tensorflow, "pytorch": pytorch}


# Measuring ----------------------------------------------------------------------------------------------------


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
