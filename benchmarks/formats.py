"""Measures encoders in every format: `python benchmarks/formats.py --encoder NAME --data IMAGES`.

For each format: bytes, agreement with the encoder in float32 on real images (cosine of the features; and the share of
the 10 nearest neighbors among these images that stay the same, which a common offset of all features cannot raise), and
CPU time of one image on one core as a ratio to the SavedModel's. Rounds are interleaved, and CPU time, not waiting
time, is compared, so other work on the machine changes little. int8 is calibrated on other images than those measured.

An encoder is a zoo entry, a run folder, or a backbone's name for one with fresh weights (batch-norm statistics are
then set from the images). `--json FILE` replaces the rows of this encoder; `--page FILE` writes the table of all rows
between its two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

BEGIN, END = "<!-- formats: begin -->", "<!-- formats: end -->"
FORMATS = {
    "SavedModel, float32": ("saved_model", "float32"),
    "ONNX, float32": ("onnx", "float32"),
    "LiteRT, float32": ("litert", "float32"),
    "LiteRT, float16": ("litert", "float16"),
    "LiteRT, int8 weights": ("litert", "int8"),
    "LiteRT, int8 calibrated": ("litert_calibrated", "int8"),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", required=True, help="zoo entry, run folder or backbone")
    parser.add_argument("--data", required=True, help="images, as keras-ssl embed takes them")
    parser.add_argument("--images", type=int, default=200, help="to measure the agreement on")
    parser.add_argument("--calibration", type=int, default=64, help="images for the ranges of int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to put the rows into")
    parser.add_argument("--page", help="page to put the table of all rows into")
    return parser.parse_args(arguments)


def load(name: str):
    """Returns an encoder and whether it has trained weights."""
    from keras_ssl import backbones
    from keras_ssl.pretraining.finish import load_any_encoder

    if name in backbones.names():
        return backbones.build(name), False
    return load_any_encoder(name), True


def settle(encoder, images: np.ndarray) -> None:
    """Gives a fresh network batch-norm statistics of real images; without them its activations grow block by block."""
    import tensorflow as tf

    step = tf.function(lambda x: encoder(x, training=True)["features"])
    for start in list(range(0, len(images) - 7, 8)) * 4:
        step(images[start : start + 8])


def runners(encoder, folder: Path, calibration: np.ndarray) -> dict:
    """Writes every format and returns name -> (function from images to features, bytes)."""
    import tensorflow as tf

    from keras_ssl import export

    found = {}
    for title, (kind, quantize) in FORMATS.items():
        path = folder / f"{kind}_{quantize}"
        if kind == "saved_model":
            export.export_encoder(encoder, path)
            serve = tf.saved_model.load(str(path)).signatures["serving_default"]
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

            def run(images, serve=serve):
                return serve(images=tf.constant(images))["features"].numpy()
        elif kind == "onnx":
            run = export.ONNXEncoder(export.write_onnx(encoder, path))
            size = path.stat().st_size
        else:
            some = calibration if kind == "litert_calibrated" else None
            export.write_litert(encoder, path, quantize=quantize, calibration=some)
            run, size = export.LiteRTEncoder(path), path.stat().st_size
        found[title] = run, size
        print(f"{title}: {size / 1e6:.2f} MB", flush=True)
    return found


def kept_neighbors(expected: np.ndarray, received: np.ndarray, k: int = 10) -> float:
    """Returns the share of each image's k nearest others that are the same by both features."""
    from keras_ssl.embedding import find_neighbors

    own = np.arange(len(expected))
    _, a = find_neighbors(expected, expected, k=k, exclude=own)
    _, b = find_neighbors(received, received, k=k, exclude=own)
    return float(np.mean([len(np.intersect1d(x, y)) / len(x) for x, y in zip(a, b, strict=True)]))


def cpu_times(found: dict, image: np.ndarray, rounds: int) -> dict[str, float]:
    """Returns the median CPU seconds of one image, the formats in turns."""
    times: dict[str, list[float]] = {title: [] for title in found}
    for turn in range(rounds + 1):
        for title, (run, _) in found.items():
            calls, begun = 0, time.process_time()
            while calls < 3 or time.process_time() - begun < 0.2:
                run(image)
                calls += 1
            if turn:  # the first round warms up
                times[title].append((time.process_time() - begun) / calls)
    return {title: statistics.median(values) for title, values in times.items()}


def measure(options: argparse.Namespace) -> list[dict]:
    from keras_ssl.export.agreement import features_of, measure_agreement
    from keras_ssl.export.litert import calibration_images

    encoder, trained = load(options.encoder)
    total = options.images + options.calibration
    images = calibration_images(options.data, encoder.image_size, total)
    chosen = np.random.default_rng(0).permutation(len(images))
    calibration, images = (
        images[chosen[: options.calibration]],
        images[chosen[options.calibration :]],
    )
    if not trained:
        settle(encoder, calibration)
    with tempfile.TemporaryDirectory() as folder:
        found = runners(encoder, Path(folder), calibration)
        expected = features_of(encoder, images)
        seconds = cpu_times(found, images[:1], options.rounds)
        base, rows = seconds["SavedModel, float32"], []
        for title, (run, size) in found.items():
            received = np.concatenate([run(image[None]) for image in images])
            agreement = measure_agreement(expected, received, FORMATS[title][1])
            rows.append(
                {
                    "encoder": options.encoder,
                    "trained": trained,
                    "image_size": encoder.image_size,
                    "data": Path(options.data).name,
                    "images": len(images),
                    "format": title,
                    "megabytes": round(size / 1e6, 2),
                    "cosine_mean": round(agreement.mean, 6),
                    "cosine_smallest": round(agreement.smallest, 6),
                    "kept_neighbors": round(kept_neighbors(expected, received), 4),
                    "enough": agreement.enough,
                    "cpu_ms": round(1e3 * seconds[title], 3),
                    "cpu_ratio": round(seconds[title] / base, 3),
                }
            )
    return rows


def table(rows: list[dict]) -> str:
    """Returns all rows as a Markdown table between its marks."""
    head = [
        "encoder", "format", "MB", "cosine, mean", "smallest", "neighbors kept", "CPU time / SavedModel's",
    ]  # fmt: skip
    lines = [head, ["---", "---"] + ["---:"] * (len(head) - 2)]
    for row in rows:
        fresh = "" if row["trained"] else ", fresh weights"
        short = "" if row["enough"] else " **too low**"
        lines.append(
            [
                f"`{row['encoder']}`, {row['image_size']} pixels{fresh}",
                row["format"],
                f"{row['megabytes']:.1f}",
                f"{row['cosine_mean']:.5f}",
                f"{row['cosine_smallest']:.5f}{short}",
                f"{row['kept_neighbors']:.1%}",
                f"{row['cpu_ratio']:.2f}",
            ]
        )
    counts = {row["encoder"]: row["images"] for row in rows}
    measured = ", ".join(f"`{name}` {count}" for name, count in counts.items())
    lines = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([BEGIN, *lines, "", f"Images measured on: {measured}.", END])


def main(arguments: list[str] | None = None) -> list[dict]:
    options = parse(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core
    rows = measure(options)
    print(table(rows))
    if options.json:
        path = Path(options.json)
        stored = json.loads(path.read_text()) if path.is_file() else {"rows": []}
        import onnxruntime
        import tensorflow as tf

        stored["environment"] = {
            "tensorflow": tf.__version__,
            "onnxruntime": onnxruntime.__version__,
            "cores": 1,
            "load_average": round(os.getloadavg()[0], 1),
        }
        stored["rows"] = [row for row in stored["rows"] if row["encoder"] != options.encoder] + rows
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored, indent=1) + "\n")
        if options.page:
            page = Path(options.page)
            text = page.read_text(encoding="utf-8")
            new = re.sub(f"{BEGIN}.*?{END}", lambda _: table(stored["rows"]), text, flags=re.S)
            page.write_text(new, encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
