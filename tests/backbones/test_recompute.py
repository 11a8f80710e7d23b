"""Blocks computed again in the backward pass: the same numbers, batch statistics once, nothing of it leaves the run."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.backbones import ResNet, ViT
from keras_ssl.export.saved_model import float32_copy
from keras_ssl.layers import clone_frozen
from keras_ssl.pretraining.recipe import Recipe
from keras_ssl.zoo.weights import describe_encoder

NETWORKS = {
    "resnet": lambda **changes: ResNet(
        blocks=(1, 1), bottleneck=False, filters=(4, 8), stem="cifar", image_size=8, **changes
    ),
    "vit": lambda **changes: ViT(
        width=8, depth=2, num_heads=2, patch_size=4, drop_path=0.3, image_size=8, **changes
    ),
}


def blocks_of(network):
    return network.blocks if hasattr(network, "blocks") else sum(network.stages, [])


def step(network):
    """Returns output, gradients by name, state by name, and how often each block was called while tracing."""
    rng = np.random.default_rng(1)
    x, weight = rng.uniform(size=(6, 8, 8, 3)), rng.normal(size=(6, network.feature_dim))
    keys = random.sample_keys(0, tf.range(6, dtype=tf.int64))
    calls = []
    for block in blocks_of(network):
        original = block.call
        block.call = lambda *args, original=original, **kw: calls.append(1) or original(*args, **kw)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            h = network(x, training=True, keys=keys)["features"]
            loss = tf.reduce_sum(h**2 * weight)
        return h, tape.gradient(loss, [v.value for v in network.trainable_variables])

    h, gradients = run()
    for block in blocks_of(network):
        del block.call
    return (
        h.numpy(),
        [gradient.numpy() for gradient in gradients],
        [variable.numpy() for variable in network.non_trainable_variables],
        len(calls) / len(blocks_of(network)),
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_and_batch_statistics_are_those_of_the_plain_network(kind):
    plain = NETWORKS[kind](dtype="float64")
    again = NETWORKS[kind](dtype="float64", recompute=True)
    for target, source in zip(again.variables, plain.variables, strict=True):
        target.assign(source)
    before = [v.numpy() for v in plain.non_trainable_variables]
    expected, got = step(plain), step(again)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-12)
    norm = np.sqrt(sum(np.sum(g**2) for g in expected[1]))
    assert norm > 1e-3
    assert max(np.abs(a - b).max() for a, b in zip(got[1], expected[1], strict=True)) < 1e-9 * norm
    for a, b in zip(got[2], expected[2], strict=True):
        np.testing.assert_allclose(
            a, b, atol=1e-12
        )  # moved once, not once more in the backward pass
    if kind == "resnet":
        moved = [not np.array_equal(a, b) for a, b in zip(before, expected[2], strict=True)]
        assert (
            all(moved) and len(moved) == 12
        )  # stem, four in the blocks, one shortcut; two of each
    assert (expected[3], got[3]) == (
        1,
        2,
    )  # each block is there a second time, for the backward pass


def test_inference_is_not_touched():
    network = NETWORKS["resnet"](recompute=True)
    traced = tf.function(lambda x: network(x, training=False)["features"])
    graph = traced.get_concrete_function(tf.TensorSpec((2, 8, 8, 3))).graph
    assert not any("IdentityN" in operation.type for operation in graph.get_operations())


@pytest.mark.parametrize("kind", NETWORKS)
def test_saved_with_the_network_but_not_published(kind, tmp_path):
    network = NETWORKS[kind](recompute=True)
    network.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    x = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 8, 3)), tf.float32)
    np.testing.assert_array_equal(loaded(x)["features"], network(x)["features"])
    assert loaded.recompute and clone_frozen(network).recompute
    assert describe_encoder(network) == describe_encoder(NETWORKS[kind]())
    assert not float32_copy(network).recompute


def test_a_run_may_go_on_with_it_or_without():
    def identity(**settings):
        return Recipe("simclr", "digits", backbone_settings=settings).identity()

    assert identity(recompute=True) == identity(recompute=False) == identity()
    assert identity(zero_init_residual=True) != identity()
