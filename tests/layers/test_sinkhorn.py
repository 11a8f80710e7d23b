"""Sinkhorn codes against hand numbers, a slow loop without logarithms, and two replicas."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import sinkhorn_codes


def draw(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape)


def reference(scores, epsilon, iterations):
    """The paper's loop on Q = exp(scores / epsilon)^T, prototypes x samples."""
    q = np.exp(scores / epsilon).T
    q = q / q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] = q[k] / q[k].sum() / prototypes
        for b in range(samples):
            q[:, b] = q[:, b] / q[:, b].sum() / samples
    return (samples * q).T


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_equals_the_loop(epsilon, iterations):
    scores = draw(9, 5)
    codes = sinkhorn_codes(scores, epsilon, iterations)
    np.testing.assert_allclose(codes, reference(scores, epsilon, iterations), rtol=1e-9)


def test_constant_scores_give_uniform_codes():
    np.testing.assert_allclose(sinkhorn_codes(np.full((6, 4), 0.3)), 0.25, rtol=1e-12)


def test_two_by_two_by_hand():
    """exp(S) = [[3, 1], [1, 1]]: over column sums [[3/4, 1/2], [1/4, 1/2]]; rows to 1: [[.6, .4], [1/3, 2/3]]."""
    scores = np.array([[np.log(3.0), 0.0], [0.0, 0.0]])
    one = [[0.6, 0.4], [1 / 3, 2 / 3]]
    three = [[0.633803, 0.366197], [0.365854, 0.634146]]
    a = np.sqrt(3) / (1 + np.sqrt(3))
    np.testing.assert_allclose(sinkhorn_codes(scores, 1.0, 1), one, rtol=1e-12)
    np.testing.assert_allclose(sinkhorn_codes(scores, 1.0, 3), three, atol=1e-6)
    np.testing.assert_allclose(
        sinkhorn_codes(scores, 1.0, 100), [[a, 1 - a], [1 - a, a]], rtol=1e-9
    )


def test_diagonal_scores_are_sharpened_at_once():
    """S = 0.1 I, epsilon = 0.05: the diagonal is sigmoid(2)."""
    codes = sinkhorn_codes(0.1 * np.eye(2), iterations=1).numpy()
    np.testing.assert_allclose(np.diag(codes), 0.880797, atol=1e-6)


def test_shifts():
    """A shift of a prototype vanishes in the first step; one of a sample changes three iterations, not the limit."""
    scores, row, column = draw(6, 4), draw(6, 1, seed=1), draw(1, 4, seed=2)
    base = sinkhorn_codes(scores, 0.5)
    np.testing.assert_allclose(sinkhorn_codes(scores + column, 0.5), base, rtol=1e-9)
    assert np.abs(sinkhorn_codes(scores + row, 0.5) - base).max() > 1e-6
    limit, shifted = (sinkhorn_codes(s, 0.5, 300) for s in (scores, scores + row))
    np.testing.assert_allclose(shifted, limit, atol=1e-10)


def test_codes_sum_to_one_and_prototypes_are_nearly_balanced():
    codes = sinkhorn_codes(draw(64, 8), 0.1).numpy()
    np.testing.assert_allclose(codes.sum(1), 1.0, rtol=1e-12)
    assert np.abs(codes.mean(0) - 1 / 8).max() < 0.02
    assert np.abs(codes.mean(0) - 1 / 8).max() > 1e-9  # the last step is the samples'


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_no_overflow(dtype):
    """exp(1 / 0.001) overflows every type; a prototype that nobody likes underflows to zero mass."""
    scores = tf.cast([[1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [0.9, -1.0, -1.0]], dtype)
    codes = sinkhorn_codes(scores, 0.001)
    assert codes.dtype == tf.float32
    assert np.all(np.isfinite(codes))
    np.testing.assert_allclose(tf.reduce_sum(codes, 1), 1.0, rtol=1e-5)


def test_no_gradient():
    scores = tf.constant(draw(4, 3))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        value = tf.reduce_sum(tf.square(sinkhorn_codes(scores)))
    assert tape.gradient(value, scores) is None


def test_queue_rows_take_part_and_get_no_codes():
    scores, extra = draw(4, 3), draw(10, 3, seed=1)
    together = reference(np.concatenate([extra, scores]), 0.05, 3)[-4:]
    np.testing.assert_allclose(sinkhorn_codes(scores, extra=extra), together, rtol=1e-9)
    off = sinkhorn_codes(scores, extra=extra, use_extra=tf.constant(False))
    np.testing.assert_allclose(off, sinkhorn_codes(scores), rtol=1e-12)
    assert np.abs(together - off).max() > 1e-3


def test_compiles():
    scores, extra = draw(6, 4), draw(8, 4, seed=1)
    compiled = tf.function(sinkhorn_codes, jit_compile=True)(scores, extra=extra)
    np.testing.assert_allclose(compiled, sinkhorn_codes(scores, extra=extra), rtol=1e-9)


def test_errors():
    with pytest.raises(ValueError, match="iterations=0"):
        sinkhorn_codes(draw(4, 3), iterations=0)
    with pytest.raises(ValueError, match="epsilon=0"):
        sinkhorn_codes(draw(4, 3), 0.0)
    with pytest.raises(ValueError, match="extra \\(5, 4\\)"):
        sinkhorn_codes(draw(4, 3), extra=draw(5, 4))
    with pytest.raises(ValueError, match="scores \\(4, 3, 1\\)"):
        sinkhorn_codes(draw(4, 3, 1))


SCRIPT = """
import json
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

import keras
from keras_ssl.distribution import gather, global_mean
from keras_ssl.layers import Center, Prototypes, Queue, clone_frozen, sinkhorn_codes, update_ema

keras.config.set_floatx("float64")
random = np.random.default_rng(0)
scores, extra = random.uniform(-1, 1, (8, 5)), random.uniform(-1, 1, (6, 5))
with strategy.scope():
    prototypes, queue, center = Prototypes(3, 5), Queue(10, 5), Center(5)
    teacher = clone_frozen(prototypes)
prototypes.kernel.assign(2 * prototypes.kernel.value)

@tf.function
def step():
    def replica():
        block = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.reshape(tf.constant(scores), (2, 4, 5))[block]
        plain, queued = sinkhorn_codes(own), sinkhorn_codes(own, extra=tf.constant(extra))
        queue.enqueue(gather(own))
        center.update(global_mean(tf.reduce_mean(own, 0)))
        update_ema(teacher, prototypes, 0.5)
        prototypes.renormalize()
        return gather(plain), gather(queued)
    return strategy.run(replica)

codes = [strategy.experimental_local_results(value) for value in step()]
variables = [*prototypes.weights, *teacher.weights, *queue.weights, *center.weights]
copies = [[np.asarray(c).tolist() for c in strategy.experimental_local_results(v.value)] for v in variables]
print(json.dumps({
    "plain": codes[0][0].numpy().tolist(),
    "queued": codes[1][0].numpy().tolist(),
    "scores": scores.tolist(), "extra": extra.tolist(), "copies": copies,
}))
"""


@pytest.fixture(scope="module")
def two_replicas():
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_two_replicas_give_the_codes_of_one(two_replicas):
    scores, extra = np.array(two_replicas["scores"]), np.array(two_replicas["extra"])
    np.testing.assert_allclose(two_replicas["plain"], sinkhorn_codes(scores), rtol=1e-12)
    queued = sinkhorn_codes(scores, extra=extra)
    np.testing.assert_allclose(two_replicas["queued"], queued, rtol=1e-12)
    # what a forgotten exchange would give
    assert np.abs(sinkhorn_codes(scores[:4]) - np.array(two_replicas["plain"])[:4]).max() > 1e-3


def test_state_of_all_layers_is_equal_on_both_replicas(two_replicas):
    kernel, teacher, rows, filled, center = two_replicas["copies"]
    for first, second in two_replicas["copies"]:
        assert first == second
    scores = np.array(two_replicas["scores"])
    np.testing.assert_array_equal(rows[0][:8], scores)
    assert filled[0] == 8
    np.testing.assert_allclose(center[0], 0.1 * scores.mean(0), rtol=1e-12)
    # rows of length 2 were averaged with the unit rows they came from, then put back on the sphere
    np.testing.assert_allclose(np.linalg.norm(teacher[0], axis=1), 1.5, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(kernel[0], axis=1), 1.0, rtol=1e-12)
