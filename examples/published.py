"""A published encoder from a local file to a server, cell by cell; open it in an editor that runs `# %%` cells.

    keras-ssl zoo card dino_vits16                       # where the file is, and its licence
    python examples/published.py dino_vits16 --weights dino_deitsmall16_pretrain.pth
    python examples/published.py dino_vits16 --server http://localhost:8501    # then, with published/serving served

Images with labels are wanted for the fine-tuning; the built-in digits have some.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_ssl import data, evaluation, export, views, zoo


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="entry, see `keras-ssl zoo list`")
    parser.add_argument("--weights", help="the published file, fetched by you")
    parser.add_argument("--accept-licence", action="store_true", help="consent to its licence")
    parser.add_argument("--any-file", action="store_true", help="a file of the same kind, not it")
    parser.add_argument("--data", default="digits", help="images with labels [digits]")
    parser.add_argument("--size", type=int, default=96, help="pixels of a side [96]")
    parser.add_argument("--count", type=int, default=64, help="images to train on [64]")
    parser.add_argument("--to", default="published", help="folder of what is written [published]")
    parser.add_argument("--server", help="only ask this server of TO/serving, a REST address")
    flags = parser.parse_args(arguments)
    if (flags.weights is None) == (flags.server is None):
        parser.error("give --weights FILE, and when its encoder is served, --server URL")
    return flags


def read(spec: str, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images spread over the data, float32 `(count, size, size, 3)` in [0, 1], and their labels."""
    source = data.open_source(spec, view_size=size)
    rows = np.linspace(0, source.num_samples - 1, min(count, source.num_samples)).astype(int)
    images, aspect, shown = source.read_batch(rows)
    return views.center_crop(images, aspect, size=size).numpy(), source.labels_of(shown)


def fine_tune(encoder: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Trains encoder and head on all images for ten epochs; returns the loss before and after."""
    inputs = keras.Input(images.shape[1:])
    logits = keras.layers.Dense(int(labels.max()) + 1)(encoder(inputs)["features"])
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    before = model.evaluate(images, labels, batch_size=32, verbose=0)
    model.fit(images, labels, batch_size=16, epochs=10, verbose=0)
    return before, model.evaluate(images, labels, batch_size=32, verbose=0)


def ask(server: str, model: Path, images: np.ndarray) -> str:
    """Asks a server for features of images, sent as PNG files, and compares them with the newest exported version."""
    path = Path(__file__).parents[1] / "export" / "serving" / "client_rest.py"
    spec = importlib.util.spec_from_file_location("client_rest", path)
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    files, pixels = [], np.uint8(np.round(255 * images))
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    answers = np.array(client.embed(server, model.name, files))
    newest = max(
        (path for path in model.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    expected = export.load_encoder(newest)(pixels.astype("float32") / 255)["features"].numpy()
    difference = np.abs(answers - expected).max() / np.abs(expected).max()
    count, numbers = answers.shape
    return f"{count} vectors of {numbers} numbers, as version {newest.name} gives here to {difference:.0e}"


def main(arguments: list[str] | None = None) -> None:
    flags = parse(arguments)
    folder = Path(flags.to)
    folder.mkdir(parents=True, exist_ok=True)
    if flags.server is not None:
        images, _ = read(flags.data, 4, flags.size)
        print(f"served: {ask(flags.server, folder / 'serving' / flags.name, images)}")
        return

    # %% Load: the file is checked, converted, and kept for the next time
    encoder = zoo.load(
        flags.name,
        weights=flags.weights,
        accept_licence=flags.accept_licence,
        any_file=flags.any_file,
    )
    images, labels = read(flags.data, flags.count, flags.size)
    outputs = encoder(images[:4])
    print({name: tuple(value.shape) for name, value in outputs.items()})

    # %% Look: where the class token attends, and the patches in three principal colors
    attention = None
    if "tokens" in outputs and getattr(encoder, "class_token", None) is not None:
        attention = evaluation.attention_maps(encoder, images[:4])
    colors = evaluation.patch_pca(encoder, images[:4])
    evaluation.save_maps(folder / "maps.png", images[:4], attention=attention, colors=colors)
    print(f"maps: {folder / 'maps.png'}")

    # %% Fine-tune: plain Keras
    before, after = fine_tune(encoder, images, labels)
    print(f"fine-tuned: loss {before:.3f} -> {after:.3f} on {len(images)} images")

    # %% Export: a folder that a server takes
    where = export.export_version(
        encoder, folder / "serving" / flags.name, image_size=flags.size, crop_ratio=1.0
    )
    print(f"exported: {where}; docs/serving.md has the command that serves {folder / 'serving'}")


if __name__ == "__main__":
    main()
