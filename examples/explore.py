"""Draws what an encoder has learned: where its class token looks, and its patches in three principal colors.

    python examples/explore.py                                     # the zoo's MAE encoder on digits
    python examples/explore.py mae_vitmini_cifar10 --data cifar10.npz --count 6
    python examples/explore.py runs/photos --data ~/photos --size 448 --foreground positive

One row for each image: the image; for a vision transformer with a class token the attention of its last block,
mean over the heads and each head; the colors. Patches with the same color look alike to the encoder, across images too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from keras_ssl import data, evaluation, views, zoo
from keras_ssl.pretraining.finish import load_any_encoder


def read(spec: str, count: int, size: int) -> np.ndarray:
    """Returns the central squares of images spread over the data, float32 `(count, size, size, 3)` in [0, 1]."""
    source = data.open_source(spec, view_size=size)
    rows = np.arange(min(count, source.num_samples)) * source.num_samples // count
    images, aspect, _ = source.read_batch(rows)
    return views.center_crop(images, aspect, size=size, crop_ratio=1.0).numpy()


def explore(encoder, images: np.ndarray, path: str, foreground: str | None = None) -> str:
    """Writes the sheet of these images; returns what is on it."""
    colors = evaluation.patch_pca(encoder, images, foreground=foreground)
    attention, drawn = None, "colors"
    if getattr(encoder, "num_prefix_tokens", 0) and encoder.class_token is not None:
        attention = evaluation.attention_maps(encoder, images)
        drawn = f"attention of {attention.shape[1]} heads and colors"
    evaluation.save_maps(path, images, attention=attention, colors=colors)
    return f"{drawn} of {len(images)} images, {colors.shape[1]} x {colors.shape[2]} patches each"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", nargs="?", help="zoo entry, run folder or .keras file")
    parser.add_argument("--data", default="digits", help="folder or other data [digits]")
    parser.add_argument("--count", type=int, default=6, help="images [6]")
    parser.add_argument("--size", type=int, help="pixels of a side [the encoder's own]")
    parser.add_argument("--foreground", choices=["positive", "negative"], help="the sign to color")
    parser.add_argument("--output", default="maps.png", help="PNG to write [maps.png]")
    flags = parser.parse_args(arguments)
    name = flags.encoder or next((entry.name for entry in zoo.list(method="mae")), None)
    if name is None:
        parser.error("the zoo has no MAE encoder here: name an encoder")
    if not Path(flags.output).absolute().parent.is_dir():
        parser.error(f"--output must be in a folder that exists, not {flags.output}")
    try:
        encoder = load_any_encoder(name)
        size = flags.size or getattr(encoder, "image_size", 224)
        patch = getattr(encoder, "patch_size", 1)
        if size % patch:
            parser.error(f"--size must be a multiple of the patches' {patch} pixels, not {size}")
        images = read(flags.data, flags.count, size)
        drawn = explore(encoder, images, flags.output, flags.foreground)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{flags.output}: {drawn}, by {name}")


if __name__ == "__main__":
    main()
