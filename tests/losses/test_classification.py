"""Cross-entropy against hand numbers and a slow loop."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.losses import cross_entropy_loss


def test_uniform_prediction_of_four_rotations():
    loss = cross_entropy_loss(np.zeros((8, 4)), np.tile([0, 1, 2, 3], 2))
    assert math.isclose(float(loss), 1.3862943611, rel_tol=1e-9)


def test_equals_the_loop():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(6, 4)), random.integers(0, 4, 6)
    terms = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(logits, labels, strict=True)
    ]
    assert math.isclose(float(cross_entropy_loss(logits, labels)), np.mean(terms), rel_tol=1e-12)


def test_half_precision_is_promoted():
    loss = cross_entropy_loss(tf.zeros((2, 4), tf.float16), [0, 1])
    assert loss.dtype == tf.float32


def test_errors():
    with pytest.raises(ValueError, match="at least two classes"):
        cross_entropy_loss(np.zeros((2, 1)), [0, 0])
    with pytest.raises(ValueError, match="labels \\(3,\\)"):
        cross_entropy_loss(np.zeros((2, 4)), [0, 1, 2])
    with pytest.raises(ValueError, match="2 axes"):
        cross_entropy_loss(np.zeros((2, 4, 1)), [0, 1])
    with pytest.raises(ValueError, match="1 axes"):
        cross_entropy_loss(np.zeros((2, 4)), [[0], [1]])
