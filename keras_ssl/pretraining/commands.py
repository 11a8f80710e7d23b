"""What the commands `evaluate`, `export` and `prepare` do, without their flags."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from keras_ssl import evaluation
from keras_ssl import export as exporting
from keras_ssl.data import EncodedSource, FolderSource, Source, open_source
from keras_ssl.data import prepare as prepare_pictures
from keras_ssl.data.prepared import CACHE_NAME, point_to
from keras_ssl.data.shards import kind_of
from keras_ssl.export.formats import check_target
from keras_ssl.pretraining.console import Reporter, duration
from keras_ssl.pretraining.finish import load_any_encoder
from keras_ssl.pretraining.origin import facts_of
from keras_ssl.pretraining.recipe import SettingError, load_recipe


def evaluate(
    encoder: str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    limit: int | None = None,
    batch_size: int = 256,
    epochs: int = 100,
    seed: int = 0,
    to: str | None = None,
) -> int:
    """Prints k-NN, linear probe and label-free measures of an encoder.

    Args:
        encoder: str. Run folder, `.keras` file, SavedModel or zoo entry.
        data: str. Labelled images to train on. Defaults to the data of the run.
        test_data: str. Labelled images to score. Defaults to a held-out fifth of `data`.
        data_dir: str. Where TFDS keeps its prepared data sets.
        image_size: int. Side of the images, pixels. Defaults to the encoder's.
        limit: int. At most so many images of each set.
        batch_size: int. Images at a time. Defaults to `256`.
        epochs: int. Of the linear probe. Defaults to `100`.
        seed: int. Of splits and probe. Defaults to `0`.
        to: str. JSON file for the results. Defaults to `evaluation.json` in the run folder, if it is one.

    Returns:
        The exit code 0.
    """
    stored = load_recipe(Path(encoder))
    if data is None and stored is None:
        raise SettingError(
            "Expected --data for an encoder that is not a run folder. Received: nothing."
        )
    if stored is not None:
        if data is None and stored["recipe"]["data"] == "array":
            raise SettingError(
                "Expected --data: the run was made from arrays in memory. Received: nothing."
            )
        data = data or stored["recipe"]["data"]
        data_dir = data_dir or stored["recipe"]["data_dir"]
    network = load_any_encoder(encoder)
    size = image_size or getattr(network, "image_size", None)

    def source(name: str) -> Source:
        return open_source(name, data_dir=data_dir, view_size=size)

    results = evaluation.evaluate_encoder(
        network,
        source(data),
        None if test_data is None else source(test_data),
        image_size=size,
        batch_size=batch_size,
        limit=limit,
        epochs=epochs,
        seed=seed,
    )
    results["encoder"], results["data"], results["test_data"] = str(encoder), data, test_data
    evaluation.print_results(results)
    if to is None and stored is not None:
        to = str(Path(encoder) / "evaluation.json")
    if to is not None:
        evaluation.write_json(to, results)
        print(f"Results in {to}")
    return 0


def export(
    encoder: str,
    *,
    to: str,
    format: str = "saved_model",
    image_size: int | None = None,
    **options: Any,
) -> int:
    """Writes an encoder in one of the formats of `keras_ssl.export.FORMATS`.

    Args:
        encoder: str. Run folder, `.keras` file, SavedModel or zoo entry.
        to: str. Folder or file to write.
        format: str. A name of `FORMATS`. Defaults to `"saved_model"`.
        image_size: int. Side of the images, pixels. Defaults to the encoder's.
        **options: Settings of the format, such as `crop_ratio`; None stands for one that was not given.

    Returns:
        The exit code 0.
    """
    check_target(format, to)
    network = load_any_encoder(encoder)
    size = image_size or getattr(network, "image_size", None)
    for line in exporting.write_as(
        format, network, to, image_size=size, facts=facts_of(encoder), **options
    ):
        print(line)
    return 0


def prepare(
    data: str,
    *,
    to: str | None = None,
    size: int = 512,
    quality: int = 90,
    threads: int | None = None,
) -> int:
    """Writes smaller copies of pictures once, so that a run need not decode large ones every epoch.

    Args:
        data: str. A folder of pictures, or TFRecord, tar or Parquet files as `pretrain --data` takes them.
        to: str. Folder of the cache. Defaults to `.keras_ssl-cache` in the folder of pictures.
        size: int. Shorter side of the copies, pixels. Defaults to `512`.
        quality: int. JPEG quality, 1 to 95. Defaults to `90`.
        threads: int. Pictures at a time. Defaults to one for each processor.

    Returns:
        The exit code 0.
    """
    folder = Path(data).expanduser()
    of_folder = folder.is_dir() and kind_of(str(folder)) is None
    source = FolderSource(folder) if of_folder else open_source(data)
    if not isinstance(source, EncodedSource) or (to is None and not of_folder):
        wanted = "encoded pictures" if to else "--to DIR for data that are no folder of pictures"
        raise SettingError(f"Expected {wanted}. Received: {data}.")
    cache = Path(to).expanduser() if to else folder / CACHE_NAME
    reporter, begun = Reporter(source.num_samples, 0, title="preparing"), []
    reporter.line(f"data      {source.describe()}")

    def show(done: int, total: int) -> None:
        begun[:] = begun or [time.monotonic(), done - 1]
        rate = (done - begun[1]) / max(time.monotonic() - begun[0], 1e-9)
        left = f"{rate:.1f} images/s, {duration((total - done) / rate)} left"
        reporter.progress(done, f"{done:,} of {total:,} images, {left}", last=done == total)

    try:
        written = prepare_pictures(
            source, cache, size=size, quality=quality, num_threads=threads, progress=show
        )
    finally:
        reporter.close()
    noted = of_folder and point_to(folder, cache)
    size_mb = sum(path.stat().st_size for path in cache.glob("*.tar")) / 1e6
    print(
        f"{written:,} pictures written; {cache} holds {source.num_samples:,} ({size_mb:,.0f} MB). "
        f"--data {folder if noted else cache} uses it up to a canvas of {size} pixels."
    )
    return 0
