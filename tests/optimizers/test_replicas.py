"""Two replicas take the step of one device: weights, slots, refused and frozen steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
STRATEGIES = {1: tf.distribute.get_strategy(), 2: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}

import keras
from keras_ssl.optimizers import LAMB, LARS, SGD, AdamW, CosineRamp, ParameterGroup, WarmupCosine

keras.config.set_floatx("float64")
random = np.random.default_rng(0)
FIRST = [random.normal(size=(3, 2)), random.normal(size=2), random.normal(size=(2, 2))]
GRADIENTS = [random.normal(size=(2, *x.shape)) for x in FIRST]  # one of each half batch
MAKE = {
    "sgd": lambda: SGD(WarmupCosine(0.1, 10, 2, start=0.05), weight_decay=CosineRamp(0.1, 0.2, 10)),
    "adamw": lambda: AdamW(0.1),
    "lars": lambda: LARS(0.1, variant="solo", weight_decay=0.1),
    "lamb": lambda: LAMB(0.1),
}

def run(replicas, make, reduced):
    strategy = STRATEGIES[replicas]
    with strategy.scope():
        variables = [keras.Variable(x, name=f"v{i}", dtype="float64") for i, x in enumerate(FIRST)]
        optimizer = make()
        optimizer.set_parameter_groups([ParameterGroup("v2", 0.5, constant_learning_rate=True, frozen_steps=2)])
        optimizer.build(variables)

    @tf.function
    def step(finite):
        def replica(finite):
            context = tf.distribute.get_replica_context()
            block = context.replica_id_in_sync_group
            halves = [tf.constant(g) for g in GRADIENTS]
            own = [g[block] if replicas == 2 else tf.reduce_sum(g, 0) for g in halves]
            if reduced:
                own = context.all_reduce("SUM", own)
            own = [tf.where(finite, g, g * np.inf) for g in own]
            optimizer.apply_if(finite, own, variables, reduced=reduced)
        strategy.run(replica, args=(finite,))

    for finite in (True, True, False, True, True):
        step(tf.constant(finite))
    state = [*variables, *optimizer.variables]
    return [
        [np.asarray(c, "float64").tolist() for c in strategy.experimental_local_results(v.value)]
        for v in state
    ]

CASES = [(name, False) for name in MAKE] + [("sgd", True)]
print(json.dumps({
    replicas: {f"{name}-{reduced}": run(replicas, MAKE[name], reduced) for name, reduced in CASES}
    for replicas in (1, 2)
}))
"""


@pytest.fixture(scope="module")
def runs():
    """Returns {"1": ..., "2": ...}: for each number of replicas all variables of each case, on each replica."""
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


@pytest.mark.parametrize(
    "case", ["sgd-False", "adamw-False", "lars-False", "lamb-False", "sgd-True"]
)
def test_two_replicas_take_the_step_of_one(runs, case):
    """True: the gradients are already summed when they are handed over."""
    one, two = runs["1"][case], runs["2"][case]
    assert len(one) == len(two)
    for alone, (first, second) in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, alone[0], rtol=1e-13)
        assert np.all(np.isfinite(first))


def test_refused_steps_are_counted(runs):
    """Variables: three of the model, then the iteration."""
    assert runs["2"]["adamw-False"][3] == [5.0, 5.0]
