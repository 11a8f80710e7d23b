"""Measures what the square canvas costs and what detail it loses: `python benchmarks/canvas.py --data DIR`.

A picture is decoded once onto a canvas, and all its views are cut from it. The reference decodes the whole
picture and cuts each view from that. One row for each canvas: pictures per second of CPU time (decoding and
cutting, one thread), and how far the views are from the reference's: mean absolute error (of 255), PSNR, and
detail, the mean square of the differences between neighboring pixels divided by the reference's. `small`
counts only views whose box is smaller than the view in canvas pixels, which is where a canvas has to lose.
Without `--data` the pictures are generated: 12 megapixels, noise with as much contrast in each octave as
natural pictures have. Rows `prepared` begin with the copies of `keras-ssl prepare`. Views are random resized
crops, cut with Pillow on both sides.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

FULL = (4032, 3024)  # pixels of a generated picture


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of pictures; default: generated ones")
    parser.add_argument("--count", type=int, default=8, help="pictures")
    parser.add_argument("--views", type=int, default=2, help="views of each picture")
    parser.add_argument("--view-size", type=int, default=224)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0), help="area of a view")
    parser.add_argument("--canvases", type=int, nargs="*", default=(224, 448, 672, 1024))
    parser.add_argument(
        "--prepared", type=int, nargs="*", default=(512, 768), help="sizes of prepared copies"
    )
    parser.add_argument("--json", help="file to add the rows to")
    return parser.parse_args(arguments)


def generate(number: int) -> bytes:
    """Returns a JPEG of `FULL` size: octaves of noise, each of the same contrast, and in color."""
    generator = np.random.default_rng(number)
    width, height = FULL
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(3, 12):
        shape = (2**octave * 3 // 4, 2**octave, 3)
        noise = np.uint8(generator.integers(0, 256, shape))
        total += np.asarray(
            Image.fromarray(noise).resize(FULL, Image.Resampling.BICUBIC), np.float32
        )
    total = (total - total.mean()) / total.std() * 50 + 127
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(total, 0, 255))).save(file, "JPEG", quality=90)
    return file.getvalue()


def load(options: argparse.Namespace) -> list[bytes]:
    from keras_ssl.data import FolderSource
    from keras_ssl.data.base import sampled_indices

    if options.data is None:
        return [generate(number) for number in range(options.count)]
    source = FolderSource(options.data)
    return [source.record(i) for i in sampled_indices(source.num_samples, options.count)]


def boxes_of(pictures: list[bytes], options: argparse.Namespace) -> np.ndarray:
    """Returns `(pictures, views, 4)`: left, top, right, bottom as fractions of each picture."""
    import tensorflow as tf

    from keras_ssl import random
    from keras_ssl.data import decode
    from keras_ssl.views.crop import random_boxes

    side = 4096  # fine enough that rounding does not matter
    sizes = [decode.read_header(data)[0] for data in pictures]
    aspect = np.repeat([width / height for width, height in sizes], options.views)
    keys = random.sample_keys(0, tf.range(len(aspect), dtype=tf.int64))
    top, left, tall, broad = (
        random_boxes(keys, side, side, scale=tuple(options.scale), aspect=aspect).numpy().T / side
    )
    edges = np.stack([left, top, left + broad, top + tall], -1)
    return edges.reshape(len(pictures), options.views, 4)


def cut(picture: Image.Image, boxes: np.ndarray, size: int) -> list[np.ndarray]:
    scale = np.array(picture.size * 2)
    how = (size, size), Image.Resampling.BILINEAR
    return [np.asarray(picture.resize(*how, box=tuple(box * scale))) for box in boxes]


def by_canvas(data: bytes, boxes: np.ndarray, size: int, canvas: int) -> list[np.ndarray]:
    from keras_ssl.data import decode

    return cut(Image.fromarray(decode.decode(data, (canvas, canvas))[0]), boxes, size)


def exactly(data: bytes, boxes: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts each view from the whole decoded picture."""
    from PIL import ImageOps

    with Image.open(io.BytesIO(data)) as image:
        return cut(ImageOps.exif_transpose(image).convert("RGB"), boxes, size)


def detail(views: np.ndarray) -> float:
    """Returns the mean square of the differences between neighboring pixels."""
    return sum(np.square(np.diff(views, axis=axis)).mean() for axis in (1, 2))


def compare(views: np.ndarray, exact: np.ndarray, chosen: np.ndarray) -> dict[str, float | None]:
    if not chosen.any() or views is exact:
        return {"mae": None, "psnr": None, "detail": None}
    a, b = views[chosen].astype(np.float32), exact[chosen].astype(np.float32)
    error = np.square(a - b).mean((1, 2, 3))
    return {
        "mae": round(float(np.abs(a - b).mean()), 2),
        "psnr": round(float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-2)))), 1),
        "detail": round(float(detail(a) / detail(b)), 3),
    }


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    from keras_ssl.data import decode

    pictures = load(options)
    size, boxes = options.view_size, boxes_of(pictures, options)
    ways = [("exact", None, pictures)] + [("canvas", side, pictures) for side in options.canvases]
    for least in options.prepared:
        copies = [decode.shrink(data, least, 90) for data in pictures]
        fitting = [side for side in options.canvases if side <= least]
        ways += [(f"prepared {least}", side, copies) for side in fitting]
    rows, exact = [], None
    for way, canvas, data in ways:
        begun = time.process_time()
        if canvas is None:
            views = [exactly(*pair, size) for pair in zip(data, boxes, strict=True)]
        else:
            views = [by_canvas(*pair, size, canvas) for pair in zip(data, boxes, strict=True)]
        seconds = time.process_time() - begun
        views = np.concatenate(views)
        exact = views if exact is None else exact
        sides = (boxes[..., 2:] - boxes[..., :2]).min(-1).ravel() * (canvas or np.inf)
        row = {
            "pictures": "generated, 12 megapixels"
            if options.data is None
            else Path(options.data).name,
            "way": way,
            "canvas": canvas,
            "images_per_s_per_core": round(len(data) / seconds, 1),
            **compare(views, exact, np.ones(len(views), bool)),
            "small_share": round(float((sides < size).mean()), 3),
        }
        small = compare(views, exact, sides < size)
        rows.append(row | {f"small_{name}": value for name, value in small.items()})
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    options = parse(arguments)
    rows = measure(options)
    columns = list(rows[0])[1:]
    print(rows[0]["pictures"])
    print("".join(f"{name:>{max(14, len(name) + 2)}}" for name in columns))
    for row in rows:
        print("".join(f"{row[name]!s:>{max(14, len(name) + 2)}}" for name in columns))
    if options.json:
        path = Path(options.json)
        stored = json.loads(path.read_text()) if path.exists() else {"settings": {}, "rows": []}
        kind = rows[0]["pictures"]
        stored["settings"][kind] = {
            name: getattr(options, name)
            for name in ("count", "views", "view_size", "scale", "prepared")
        } | {"machine": platform.machine(), "python": platform.python_version()}
        stored["rows"] = [row for row in stored["rows"] if row["pictures"] != kind] + rows
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(stored, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
