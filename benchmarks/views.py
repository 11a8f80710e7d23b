"""Measures how fast views are made: `python benchmarks/views.py --recipes simclr_cifar --threads 1`.

One row for each recipe: samples and views for each second and core. `--mode data` (default) runs the host
kernel inside `tf.data`, as a run on a CPU does; `graph` and `xla` run the engine in a compiled step.
`--pil` adds the same SimCLR views for 32 pixels made image by image with Pillow and NumPy, which is what
torchvision's Pillow backend does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random as python_random
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", nargs="*", help="names of view recipes; default: all")
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2), help="cores to use")
    parser.add_argument("--mode", default="data", choices=("data", "graph", "xla"))
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each recipe")
    parser.add_argument("--batch", type=int, help="samples; default: 256 up to 64 pixels, else 16")
    parser.add_argument("--side", type=int, help="canvas; default: 32 up to 64 pixels, else 256")
    parser.add_argument(
        "--pil", action="store_true", help="compare with Pillow (SimCLR, 32 pixels)"
    )
    parser.add_argument("--json", help="file to write the rows to")
    return parser.parse_args(arguments)


def rate_of(step, samples: int, seconds: float) -> tuple[float, float]:
    """Returns samples per second of wall time and per second of CPU time, all threads counted.

    The second is the rate per core, and holds on a machine that is busy with other work too.
    """
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count < 3 or time.perf_counter() - wall < seconds:
        step()
        count += 1
    return tuple(
        samples * count / spent for spent in (time.perf_counter() - wall, time.process_time() - cpu)
    )


def as_row(name, mode, threads, batch, canvas, count, first, rates) -> dict[str, object]:
    """Returns one row of the table."""
    return {
        "recipe": name,
        "mode": mode,
        "threads": threads,
        "batch": batch,
        "canvas": canvas,
        "views": count,
        "first_call_s": round(first, 1),
        "images_per_s": round(rates[0], 1),
        "images_per_s_per_core": round(rates[1], 1),
        "views_per_s_per_core": round(count * rates[1], 1),
    }


def noise(batch: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Returns one row of the table."""
    import tensorflow as tf

    from keras_ssl import random, views

    small = views.main_size(name) <= 64
    batch = options.batch or (256 if small else 16)
    side = options.side or (32 if small else 256)
    images = tf.constant(noise(batch, side))
    keys = random.sample_keys(0, tf.range(batch, dtype=tf.int64))
    engine = views.ViewEngine(name, kernel="host" if options.mode == "data" else "auto")
    start = time.perf_counter()
    if options.mode == "data":
        data = tf.data.Dataset.from_tensors((images, keys)).repeat()
        settings = tf.data.Options()
        settings.threading.private_threadpool_size = options.threads
        settings.threading.max_intra_op_parallelism = 1
        data = data.map(engine, num_parallel_calls=options.threads, deterministic=True)
        iterator = iter(data.with_options(settings))

        def step() -> None:
            next(iterator)

    else:
        compiled = tf.function(engine, jit_compile=options.mode == "xla")

        def step() -> None:
            compiled(images, keys)

    step()
    first = time.perf_counter() - start
    rates = rate_of(step, batch, options.seconds)
    count = sum(views.get(name).counts.values())
    return as_row(name, options.mode, options.threads, batch, side, count, first, rates)


def pil_view(image, generator: python_random.Random):
    """One SimCLR view for 32 pixels (strength 0.5, no blur) as torchvision's Pillow backend makes it."""
    from PIL import Image, ImageEnhance

    side, left, top, width, height = 32, 0, 0, 32, 32
    for _ in range(10):
        area = side * side * generator.uniform(0.08, 1.0)
        shape = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
        if 0 < w <= side and 0 < h <= side:
            left, top = generator.randint(0, side - w), generator.randint(0, side - h)
            width, height = w, h
            break
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if generator.random() < 0.8:
        for kind in generator.sample(range(4), 4):
            if kind == 3:
                hue, saturation, value = image.convert("HSV").split()
                shift = np.uint8(int(generator.uniform(-0.1, 0.1) * 255) % 256)
                hue = Image.fromarray(np.asarray(hue) + shift)
                image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
            else:
                enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
                image = enhance(image).enhance(generator.uniform(0.6, 1.4))
    if generator.random() < 0.2:
        image = image.convert("L").convert("RGB")
    return np.asarray(image, np.float32) / 255.0


def measure_pil(seconds: float) -> dict[str, object]:
    """Returns the row of two Pillow views for each 32-pixel image, one thread."""
    from PIL import Image

    generator = python_random.Random(0)
    pictures = [Image.fromarray(image) for image in noise(64, 32)]

    def step() -> None:
        for picture in pictures:
            for _ in range(2):
                pil_view(picture, generator)

    step()
    return as_row("simclr_cifar", "pil", 1, 1, 32, 2, 0.0, rate_of(step, len(pictures), seconds))


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    options = parse(arguments)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    from keras_ssl import views

    columns = {
        "recipe": 18,
        "mode": 7,
        "canvas": 8,
        "views": 7,
        "first_call_s": 14,
        "images_per_s": 14,
        "images_per_s_per_core": 23,
        "views_per_s_per_core": 22,
    }
    print("".join(f"{title:>{width}}" for title, width in columns.items()))
    rows = []
    for name in [*(options.recipes or views.names()), *(["pil"] if options.pil else [])]:
        row = measure_pil(options.seconds) if name == "pil" else measure(name, options)
        rows.append(row)
        print("".join(f"{row[title]:>{width}}" for title, width in columns.items()), flush=True)
    print(f"{options.threads} thread(s), TensorFlow {tf.__version__}, {platform.machine()}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
