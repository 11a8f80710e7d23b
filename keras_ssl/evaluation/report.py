"""The worth of an encoder in one call: label-free measures, k-NN and a linear probe."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_ssl.evaluation.features import FeatureExtractor
from keras_ssl.evaluation.knn import knn_accuracy
from keras_ssl.evaluation.linear import LEARNING_RATES, linear_probe
from keras_ssl.evaluation.measures import label_free_report

TEST_SHARE = 0.2


def split_indices(
    count: int, seed: int = 0, share: float = TEST_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a fixed random split for data without a test set.

    Args:
        count: int. At least two samples.
        seed: int. Defaults to `0`.
        share: float in (0, 1). Share of the test part. Defaults to `0.2`.

    Returns:
        tuple of sorted int64 arrays: train, test. Both have at least one sample.
    """
    if count < 2:
        raise ValueError(f"A split needs at least two samples. Received: count={count}")
    order = np.random.default_rng(seed).permutation(count)
    held = min(max(1, round(share * count)), count - 1)
    return np.sort(order[held:]), np.sort(order[:held])


def evaluate_encoder(
    encoder: Callable,
    train_source: Any,
    test_source: Any = None,
    *,
    image_size: int | None = None,
    batch_size: int = 256,
    crop_ratio: float | None = None,
    limit: int | None = None,
    ks: Sequence[int] = (1, 10, 20, 200),
    temperature: float = 0.07,
    learning_rates: Sequence[float] = LEARNING_RATES,
    epochs: int = 100,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures a frozen encoder.

    Features are taken once, under the evaluation transform. Without labels only the label-free measures are given.

    Args:
        encoder: Keras model, or callable from images in [0, 1] to features.
        train_source: Source, or array of images. Labelled images to learn from.
        test_source: Source. Labelled images to score. None holds out a fixed random fifth of the training images.
            Defaults to `None`.
        image_size: int. None takes the encoder's own. Defaults to `None`.
        batch_size: int. Images at a time. Defaults to `256`.
        crop_ratio: float in (0, 1]. None takes 1.0 up to 64 pixels and 0.875 above. Defaults to `None`.
        limit: int. At most so many images of each source, drawn at random with the seed. Defaults to `None`.
        ks: ints. Numbers of neighbors. Defaults to `(1, 10, 20, 200)`.
        temperature: float > 0. Of the k-NN vote. Defaults to `0.07`.
        learning_rates: floats. Tried by the linear probe.
        epochs: int. Of the linear probe; 0 leaves it out. Defaults to `100`.
        seed: int. Of the choice of images, the split and the probe. Defaults to `0`.
        progress: callable `(part, done, total)`, called after each batch. Defaults to `None`.

    Returns:
        dict, ready for JSON: `protocol` (what was done), `label_free`, and with labels `knn` (dict from k to
        accuracy) and `linear` (see `LinearProbeResult`; None when left out).
    """
    extract = FeatureExtractor(
        encoder, image_size=image_size, batch_size=batch_size, crop_ratio=crop_ratio
    )

    def features_of(source: Any, part: str) -> tuple[np.ndarray, np.ndarray | None]:
        count = len(source) if hasattr(source, "shape") else source.num_samples
        chosen = np.sort(np.random.default_rng(seed).permutation(count)[:limit])
        report = None if progress is None else lambda done, total: progress(part, done, total)
        return extract(source, indices=chosen, progress=report)

    x, y = features_of(train_source, "train")
    if test_source is None:
        train, test = split_indices(len(x), seed)
        test_x, x = x[test], x[train]
        test_y, y = (None, None) if y is None else (y[test], y[train])
    else:
        test_x, test_y = features_of(test_source, "test")
    results: dict[str, Any] = {
        "protocol": {
            "num_train": len(x),
            "num_test": len(test_x),
            "test_set": "held-out fifth of train" if test_source is None else "test source",
            "feature_dim": x.shape[1],
            "image_size": extract.image_size,
            "crop_ratio": extract.crop_ratio,
            "knn_temperature": temperature,
            "seed": seed,
        },
        "label_free": label_free_report(x),
    }
    if y is None or test_y is None:
        return results
    common = {"num_classes": int(max(y.max(), test_y.max())) + 1}
    results["knn"] = knn_accuracy(x, y, test_x, test_y, ks=ks, temperature=temperature, **common)
    results["linear"] = None
    if epochs:
        settings = {"learning_rates": learning_rates, "epochs": epochs, "seed": seed}
        results["linear"] = linear_probe(x, y, test_x, test_y, **settings, **common).to_dict()
    return results


def write_json(path: str | Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, whole or not at all; numbers that are not finite become null.

    Args:
        path: path of the file; its folder is made.
        results: dict, as `evaluate_encoder` returns it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(_plain(results), indent=2, allow_nan=False) + "\n")
    draft.replace(path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def results_table(results: dict[str, Any]) -> Table:
    """Returns the results of `evaluate_encoder` as a table for the terminal."""
    protocol = results["protocol"]
    counts = f"{protocol['num_train']:,} train, {protocol['num_test']:,} test"
    table = Table(title=f"{counts} ({protocol['test_set']})", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("note")
    for k, accuracy in results.get("knn", {}).items():
        table.add_row(f"{k}-NN", f"{accuracy:.2%}", f"temperature {protocol['knn_temperature']}")
    if results.get("linear"):
        linear = results["linear"]
        scaled = "standardized" if linear["standardize"] else "raw"
        note = f"learning rate {linear['learning_rate']:g}, {scaled} features"
        table.add_row("linear probe", f"{linear['accuracy']:.2%}", note)
    healthy = f"spread evenly: {1.0 / math.sqrt(protocol['feature_dim']):.4f}"
    notes = {
        "rankme": f"of {min(protocol['feature_dim'], protocol['num_train'])}",
        "embedding_std": healthy,
        "uniformity": "0 = collapsed",
        "mean_cosine": "1 = collapsed",
    }
    for name, value in results["label_free"].items():
        table.add_row(name, f"{value:.4g}", notes.get(name, ""))
    return table


def print_results(results: dict[str, Any], console: Console | None = None) -> None:
    """Prints the results of `evaluate_encoder`.

    Args:
        results: dict.
        console: rich Console. Defaults to one on standard output.
    """
    (console or Console()).print(results_table(results))
