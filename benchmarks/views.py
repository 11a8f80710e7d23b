"""Measures how fast views are made: `python benchmarks/views.py --recipes simclr_cifar --threads 1`.

One row for each recipe: samples and views for each second and core. `--mode data` (default) runs the host
kernel inside `tf.data`, as a run on a CPU does; `graph` and `xla` run the engine in a compiled step.

`--peer` measures lightly's transforms (torchvision on Pillow images) in turns with the library, on the same
pictures and the same core, and gives the ratio; `--peer-python PATH` runs them in another interpreter.
With `--decode`, each recipe is measured a second time with JPEG decoding as part of the work on both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PEER_CASES = ("simclr_cifar", "simclr", "swav", "dino")  # those that `views_peer.py` knows
COLUMNS = {
    "recipe": 18,
    "side": 10,
    "mode": 7,
    "decode": 8,
    "views": 7,
    "images_per_s": 14,
    "images_per_s_per_core": 23,
    "ratio": 7,
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", nargs="*", help="names of view recipes; default: all")
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2), help="cores to use")
    parser.add_argument("--mode", default="data", choices=("data", "graph", "xla"))
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each turn")
    parser.add_argument(
        "--turns", type=int, default=3, help="turns of each side; the median counts"
    )
    parser.add_argument("--batch", type=int, help="samples; default: 256 up to 64 pixels, else 16")
    parser.add_argument("--canvas", default="auto", help="side that large pictures are decoded to")
    parser.add_argument("--peer", action="store_true", help="compare with lightly and torchvision")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has them; default: this one"
    )
    parser.add_argument("--decode", action="store_true", help="measure with JPEG decoding too")
    parser.add_argument("--json", help="file to write the rows to")
    options = parser.parse_args(arguments)
    if options.recipes is None and options.peer:
        options.recipes = list(PEER_CASES)
    if options.peer and not set(options.recipes) <= set(PEER_CASES):
        parser.error(
            f"--peer knows the recipes {', '.join(PEER_CASES)}. Received: {options.recipes}"
        )
    if options.decode and options.mode != "data":
        parser.error(f"--decode needs --mode data. Received: --mode {options.mode}")
    return options


def picture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns uint8 noise with a natural picture's spectrum (1 / frequency) and correlated colors."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    real, imaginary = generator.normal(size=(2, 3, *frequency.shape))
    waves = np.fft.irfft2((real + 1j * imaginary) / frequency, s=(height, width))
    mixed = np.einsum("ij,jhw->hwi", np.eye(3) + 1.5, waves / waves.std())
    return np.clip(120.0 + 50.0 * mixed / mixed.std(), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, height: int, width: int) -> None:
    """Writes the same pictures as .npy (decoded) and as .jpg (quality 90)."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for index in range(count):
        pixels = picture(generator, height, width)
        np.save(folder / f"{index:04d}.npy", pixels)
        Image.fromarray(pixels).save(folder / f"{index:04d}.jpg", quality=90)


def rate_of(step, samples: int, seconds: float) -> dict[str, float]:
    """Returns samples per second of wall time and per second of CPU time, all threads counted.

    The second is the rate per core, and holds on a machine that is busy with other work too.
    """
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count == 0 or time.perf_counter() - wall < seconds:
        step()
        count += 1
    return {
        "images_per_s": samples * count / (time.perf_counter() - wall),
        "images_per_s_per_core": samples * count / (time.process_time() - cpu),
    }


class Ours:
    """The library's views of the pictures in a folder."""

    def __init__(
        self, name: str, folder: Path, with_decoding: bool, options: argparse.Namespace
    ) -> None:
        import tensorflow as tf

        from keras_ssl import random, views
        from keras_ssl.data import base, decode

        files = sorted(folder.glob("*.jpg"))
        encoded = [file.read_bytes() for file in files]
        pixels = [np.load(file.with_suffix(".npy")) for file in files]
        size = pixels[0].shape[1::-1]
        canvas = options.canvas if options.canvas == "auto" else int(options.canvas)
        canvas = base.choose_canvas([size], canvas, views.main_size(name))
        self.canvas = list(canvas)

        def read() -> tuple[np.ndarray, np.ndarray]:
            made = [decode.decode(data, canvas) for data in encoded]
            images, aspects = zip(*made, strict=True)
            return np.stack(images), np.array(aspects, np.float32)

        change = decode.shape_change(size, canvas)
        ready = np.stack([decode.resize_array(image, canvas) for image in pixels])
        aspect = tf.fill([len(files)], tf.constant(change, tf.float32))
        keys = random.sample_keys(0, tf.range(len(files), dtype=tf.int64))
        engine = views.ViewEngine(name, kernel="host" if options.mode == "data" else "auto")

        def load(images: tf.Tensor, keys: tf.Tensor, aspect: tf.Tensor):
            if with_decoding:
                images, aspect = tf.numpy_function(read, [], (tf.uint8, tf.float32))
                images = tf.ensure_shape(images, ready.shape)
                aspect = tf.ensure_shape(aspect, [len(files)])
            return engine(images, keys, aspect)

        batch = (tf.constant(ready), keys, aspect)
        self.count = len(files)
        if options.mode == "data":
            data = tf.data.Dataset.from_tensors(batch).repeat()
            settings = tf.data.Options()
            settings.threading.private_threadpool_size = options.threads
            settings.threading.max_intra_op_parallelism = 1
            data = data.map(load, num_parallel_calls=options.threads, deterministic=True)
            iterator = iter(data.with_options(settings))
            self.step = lambda: next(iterator)
        else:
            compiled = tf.function(engine, jit_compile=options.mode == "xla")
            self.step = lambda: compiled(*batch)
        for _ in range(3):
            self.step()

    def measure(self, seconds: float) -> dict[str, float]:
        return rate_of(self.step, self.count, seconds)


class Peer:
    """The process of `views_peer.py`."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("views_peer.py")
        self.process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("The peer needs torch, torchvision and lightly; see --peer-python.")
        return json.loads(line)

    def measure(self, name: str, folder: Path, decode: bool, seconds: float) -> dict[str, float]:
        request = {"case": name, "folder": str(folder), "decode": decode, "seconds": seconds}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def opened_peer(options: argparse.Namespace) -> Iterator[Peer | None]:
    peer = Peer(options.peer_python) if options.peer else None
    try:
        yield peer
    finally:
        if peer:
            peer.close()


def rows_of(
    name: str, folder: Path, with_decoding: bool, peer: Peer | None, options: argparse.Namespace
) -> list[dict[str, object]]:
    """Returns the library's row, and the peer's; `ratio` is the library's rate per core over the peer's."""
    from keras_ssl import views

    ours, turns = Ours(name, folder, with_decoding, options), []
    if peer:
        peer.measure(name, folder, with_decoding, 0.0)
    for _ in range(options.turns):
        turn = {"keras_ssl": ours.measure(options.seconds)}
        if peer:
            turn["peer"] = peer.measure(name, folder, with_decoding, options.seconds)
        turns.append(turn)
    rows = []
    for side in turns[0]:
        row = {"recipe": name, "side": side, "mode": options.mode, "decode": with_decoding}
        row["canvas"] = ours.canvas if side == "keras_ssl" else None
        row["views"] = sum(views.get(name).counts.values())
        for rate in ("images_per_s", "images_per_s_per_core"):
            row[rate] = round(statistics.median(turn[side][rate] for turn in turns), 1)
        per_core = [
            turn["keras_ssl"]["images_per_s_per_core"] / turn[side]["images_per_s_per_core"]
            for turn in turns
        ]
        row["ratio"] = round(statistics.median(per_core), 2)
        rows.append(row)
    return rows


def environment(options: argparse.Namespace, peer: Peer | None) -> dict[str, object]:
    """Returns what the rates depend on: machine, load, versions and settings."""
    import keras
    import PIL
    import tensorflow as tf

    models = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "Pillow": PIL.__version__}
    return {
        "machine": platform.machine(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "keras_ssl_side": versions,
        "peer_side": peer.versions if peer else None,
        "threads": options.threads,
        "turns": options.turns,
        "seconds_per_turn": options.seconds,
    }


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    options = parse(arguments)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    from keras_ssl import views

    print("".join(f"{title:>{width}}" for title, width in COLUMNS.items()), flush=True)
    rows = []
    with opened_peer(options) as peer, tempfile.TemporaryDirectory() as scratch:
        cases = itertools.product(
            options.recipes or views.names(), (False, True) if options.decode else (False,)
        )
        for name, with_decoding in cases:
            small = views.main_size(name) <= 64
            folder = Path(scratch) / ("small" if small else "large")
            if not folder.exists():
                folder.mkdir()
                size = (32, 32) if small else (375, 500)
                write_pictures(folder, options.batch or (256 if small else 16), *size)
            for row in rows_of(name, folder, with_decoding, peer, options):
                rows.append(row)
                cells = (f"{row[title]!s:>{width}}" for title, width in COLUMNS.items())
                print("".join(cells), flush=True)
        about = environment(options, peer)
    print(json.dumps(about))
    if options.json:
        Path(options.json).write_text(
            json.dumps({"environment": about, "rows": rows}, indent=1) + "\n"
        )
    return rows


if __name__ == "__main__":
    main()
