"""The whole evaluation on a small labelled source."""

import io
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from keras_ssl.data import ArraySource
from keras_ssl.evaluation import report

FAST = {"epochs": 5, "learning_rates": (0.1, 1.0), "ks": (1, 5, 200), "batch_size": 64}


def colored(count=90, seed=0, labels=True):
    """Three classes told apart by their brightest channel."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 3, count)
    images = generator.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, classes] += 80
    return ArraySource(images.astype(np.uint8), classes if labels else None)


def mean_color(images):
    return {"features": tf.reduce_mean(images, axis=[1, 2])}


@pytest.fixture(scope="module")
def results():
    return report.evaluate_encoder(mean_color, colored(), colored(45, seed=1), image_size=8, **FAST)


def test_a_perfect_encoder_scores_perfectly(results):
    assert results["knn"] == {1: 1.0, 5: 1.0}
    assert results["linear"]["accuracy"] == 1.0
    assert results["linear"]["num_classes"] == 3
    assert results["protocol"]["num_train"] == 90
    assert results["protocol"]["num_test"] == 45
    assert results["protocol"]["feature_dim"] == 3
    assert 1.0 < results["label_free"]["rankme"] <= 3.0


def test_without_a_test_set_a_fixed_fifth_is_held_out():
    arguments = {"image_size": 8, **FAST}
    first = report.evaluate_encoder(mean_color, colored(), **arguments)
    again = report.evaluate_encoder(mean_color, colored(), **arguments)
    assert first == again
    assert (first["protocol"]["num_train"], first["protocol"]["num_test"]) == (72, 18)
    assert first["protocol"]["test_set"] == "held-out fifth of train"


def test_split_is_disjoint_complete_and_seeded():
    train, test = report.split_indices(11, seed=3)
    assert sorted([*train, *test]) == list(range(11))
    assert len(test) == 2
    assert report.split_indices(11, seed=3)[1].tolist() == test.tolist()
    assert any(report.split_indices(11, seed=s)[1].tolist() != test.tolist() for s in (4, 5))
    assert [len(part) for part in report.split_indices(2)] == [1, 1]
    with pytest.raises(ValueError, match="at least two samples"):
        report.split_indices(1)


def test_without_labels_only_label_free_measures_are_given():
    seen = []
    results = report.evaluate_encoder(
        mean_color,
        colored(labels=False),
        image_size=8,
        limit=40,
        progress=lambda *call: seen.append(call),
        **FAST,
    )
    assert set(results) == {"protocol", "label_free"}
    assert results["protocol"]["num_train"] + results["protocol"]["num_test"] == 40
    assert seen == [("train", 40, 40)]


def test_limit_draws_from_all_classes_of_a_sorted_source():
    """The first 30 of 90 images would be one class; a draw of 30 holds all, in directions of their own."""
    classes = np.repeat(np.arange(3), 30)
    colors = np.eye(3)[classes][:, None, None, :] * np.full((1, 8, 8, 1), 200.0)
    source = ArraySource(colors.astype(np.uint8), classes)
    results = report.evaluate_encoder(
        mean_color, source, image_size=8, limit=30, **{**FAST, "epochs": 0}
    )
    assert results["linear"] is None
    assert results["knn"] == {1: 1.0, 5: 1.0}
    assert results["protocol"]["num_test"] == 6
    assert results["label_free"]["rankme"] > 2.5


def test_json_holds_everything_and_replaces_the_old_file(tmp_path, results):
    path = tmp_path / "new" / "results.json"
    report.write_json(path, {"old": 1})
    report.write_json(path, {**results, "bad": math.inf, "array": np.float32(0.5)})
    read = json.loads(path.read_text())
    assert read["bad"] is None
    assert read["array"] == 0.5
    assert read["knn"] == {"1": 1.0, "5": 1.0}
    assert read["linear"]["sweep"][0]["learning_rate"] == 0.1
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_table_shows_every_result(results):
    buffer = io.StringIO()
    report.print_results(results, Console(file=buffer, width=120))
    text = buffer.getvalue()
    for word in (
        "90 train, 45 test",
        "1-NN",
        "5-NN",
        "linear probe",
        "100.00%",
        *results["label_free"],
    ):
        assert word in text
    assert "200-NN" not in text
