"""Each update rule against a slow NumPy loop written from its formula, over several steps."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.optimizers import LAMB, LARS, SGD, AdamW

STEPS, DECAY, RATES = 4, 0.05, [0.5, 0.4, 0.2, 0.1]


class Listed(keras.optimizers.schedules.LearningRateSchedule):
    """The rates 0.5, 0.4, 0.2, 0.1: two rules that differ only at a changing rate come apart."""

    def __call__(self, step):
        return tf.gather(tf.constant(RATES, tf.float64), step)

    def get_config(self):
        return {}


def reference_sgd(w, gradients, excluded, momentum=0.9, nesterov=False):
    mu = np.zeros_like(w)
    for rate, g in zip(RATES, gradients, strict=True):
        if not excluded:
            g = g + DECAY * w
        mu = momentum * mu + g
        w = w - rate * (g + momentum * mu if nesterov else mu)
    return w


def reference_adamw(w, gradients, excluded, betas=(0.9, 0.95), epsilon=1e-8):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (rate, g) in enumerate(zip(RATES, gradients, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        if not excluded:
            w = w * (1 - rate * DECAY)
        w = w - rate * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
    return w


def reference_lamb(w, gradients, excluded, betas=(0.9, 0.999), epsilon=1e-6):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (rate, g) in enumerate(zip(RATES, gradients, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        u = (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
        if not excluded:
            u = u + DECAY * w
            u = u * np.linalg.norm(w) / np.linalg.norm(u)
        w = w - rate * u
    return w


def reference_lars(w, gradients, excluded, variant, eta, momentum=0.9, epsilon=1e-8):
    buffer = np.zeros_like(w)
    for rate, g in zip(RATES, gradients, strict=True):
        q = 1.0
        if not excluded and variant in ("byol", "simclr"):
            g = g + DECAY * w
            q = eta * np.linalg.norm(w) / np.linalg.norm(g)
        elif not excluded:
            q = np.linalg.norm(g) + DECAY * np.linalg.norm(w) + epsilon
            q = eta * np.linalg.norm(w) / q
            if variant == "solo":
                q = min(q / rate, 1)
            g = g + DECAY * w
        if variant == "simclr":
            buffer = momentum * buffer + rate * q * g
            w = w - buffer
        else:
            buffer = momentum * buffer + q * g
            w = w - rate * buffer
    return w


def train(optimizer, shape, seed=0):
    """Returns (first weights, gradients, last weights) of a float64 run."""
    random = np.random.default_rng(seed)
    first = random.normal(size=shape)
    gradients = random.normal(size=(STEPS, *shape))
    variable = keras.Variable(first, dtype="float64")
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
    return first, gradients, variable.numpy()


CASES = {
    "sgd": (lambda **k: SGD(Listed(), **k), reference_sgd, {}),
    "nesterov": (lambda **k: SGD(Listed(), nesterov=True, **k), reference_sgd, {"nesterov": True}),
    "adamw": (lambda **k: AdamW(Listed(), betas=(0.9, 0.95), **k), reference_adamw, {}),
    "lamb": (lambda **k: LAMB(Listed(), **k), reference_lamb, {}),
    "lars-byol": (
        lambda **k: LARS(Listed(), variant="byol", **k),
        reference_lars,
        {"variant": "byol", "eta": 0.001},
    ),
    "lars-simclr": (
        lambda **k: LARS(Listed(), variant="simclr", **k),
        reference_lars,
        {"variant": "simclr", "eta": 0.001},
    ),
    "lars-solo": (
        lambda **k: LARS(Listed(), variant="solo", **k),
        reference_lars,
        {"variant": "solo", "eta": 0.02},
    ),
    "lars-larc": (
        lambda **k: LARS(Listed(), variant="larc", **k),
        reference_lars,
        {"variant": "larc", "eta": 0.001},
    ),
}


@pytest.mark.parametrize("shape", [(4, 3), (5,)])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_formula(case, shape):
    make, reference, settings = CASES[case]
    for exclude in ("none", "1d"):
        first, gradients, last = train(make(weight_decay=DECAY, exclude=exclude), shape)
        excluded = exclude == "1d" and len(shape) == 1
        np.testing.assert_allclose(
            last, reference(first, gradients, excluded, **settings), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize(
    ("make", "decays_bias"),
    [
        (SGD, True),
        (lambda **k: LARS(variant="larc", **k), True),
        (LARS, False),
        (lambda **k: LARS(variant="simclr", **k), False),
        (lambda **k: LARS(variant="solo", **k), False),
        (AdamW, False),
        (LAMB, False),
    ],
)
def test_default_exclusions(make, decays_bias):
    """The gradient is along the first axis, so a move along the second is decay (or Adam's 0 / 0 guard: none)."""
    bias = keras.Variable([1.0, 1.0])
    make(weight_decay=0.5).apply([tf.constant([1.0, 0.0])], [bias])
    assert (float(bias.numpy()[1]) != 1.0) is decays_bias


def test_lars_by_hand():
    """w = (3, 4), g = (0, 10), no decay: q = 0.001 * 5 / 10 = 5e-4, step 0.1 * q * 10 = 5e-4 down the second axis."""
    variable = keras.Variable([[3.0, 4.0]], dtype="float64")
    LARS(0.1).apply([tf.constant([[0.0, 10.0]], tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[3.0, 3.9995]], rtol=1e-8)


def test_lars_solo_is_clipped_at_the_plain_step():
    """w = 5, g = 0.01: q = 0.02 * 5 / 0.01 = 10, over lr 0.1 far above 1, so the step is lr * g."""
    variable = keras.Variable([[5.0]], dtype="float64")
    LARS(0.1, variant="solo").apply([tf.constant([[0.01]], tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[4.999]], rtol=1e-9)


@pytest.mark.parametrize("variant", ["byol", "simclr", "solo", "larc"])
def test_lars_zero_weights_and_gradients_stay_finite(variant):
    """A zero tensor takes a plain step of lr * g = 0.1; a zero gradient moves no zero tensor."""
    zero, still = keras.Variable(np.zeros((2, 2))), keras.Variable(np.ones((2, 2)))
    LARS(0.1, variant=variant).apply([tf.ones((2, 2)), tf.zeros((2, 2))], [zero, still])
    np.testing.assert_allclose(zero.numpy(), -0.1 * np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(still.numpy(), np.ones((2, 2)))


def test_lars_learning_rate_inside_or_outside_the_momentum():
    """With the rate falling to 0 the SimCLR form coasts on its old velocity, the BYOL form stops at once."""

    class Falls(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return tf.where(step == 0, 0.1, 0.0)

    moved = {}
    for variant in ("byol", "simclr"):
        variable = keras.Variable([[1.0, 0.0]])
        optimizer = LARS(Falls(), variant=variant)
        optimizer.apply([tf.constant([[1.0, 0.0]])], [variable])
        after_one = variable.numpy().copy()
        optimizer.apply([tf.constant([[1.0, 0.0]])], [variable])
        moved[variant] = float(np.abs(variable.numpy() - after_one).max())
    assert moved["byol"] == 0.0
    assert math.isclose(moved["simclr"], 0.9 * 0.1 * 0.001, rel_tol=1e-2)


def test_adamw_first_step_is_the_learning_rate():
    """After one step m^ / sqrt(v^) = sign(g): w moves by lr whatever the size of g."""
    variable = keras.Variable([[1.0, -1.0]], dtype="float64")
    AdamW(0.01, weight_decay=0.0).apply([tf.constant([[1e-3, -40.0]], tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[0.99, -0.99]], rtol=1e-6)


def test_lamb_step_is_as_long_as_the_learning_rate_times_the_weights():
    variable = keras.Variable(np.random.default_rng(0).normal(size=(3, 3)), dtype="float64")
    first = variable.numpy()
    LAMB(0.01).apply([tf.random.stateless_normal((3, 3), (1, 2), dtype=tf.float64)], [variable])
    step = np.linalg.norm(variable.numpy() - first)
    np.testing.assert_allclose(step, 0.01 * np.linalg.norm(first), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LARS(0.1, variant="adam"), "Received: variant='adam'"),
        (lambda: LARS(0.1, trust_coefficient=0.0), "trust_coefficient=0.0"),
        (lambda: SGD(0.1, momentum=1.0), "Received: momentum=1.0"),
        (lambda: SGD(-0.1), "Received: learning_rate=-0.1"),
        (lambda: SGD(lambda: 0.1), "LearningRateSchedule"),
        (lambda: AdamW(0.1, betas=(0.9,)), "betas"),
        (lambda: AdamW(0.1, betas=(0.9, 1.0)), "betas=1.0"),
        (lambda: AdamW(0.1, epsilon=0.0), "epsilon=0.0"),
        (lambda: AdamW(0.1, weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: AdamW(0.1, exclude="("), "exclude='\\('"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
