"""Layer numbers by name, and AdamW with decayed rates beside a slow NumPy loop."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones
from keras_ssl.optimizers import AdamW, CosineRamp, ParameterGroup, layer_decay, layer_ids


def vit(depth, name="vit"):
    return backbones.ViT(width=6, depth=depth, num_heads=2, patch_size=8, image_size=16, name=name)


def test_layers_of_a_vit():
    ids = layer_ids(vit(12))
    assert {ids[f"vit/{name}"] for name in ("class_token", "position_table")} == {0}
    assert ids["vit/patch_embedding/kernel"] == ids["vit/patch_embedding/bias"] == 0
    assert [ids[f"vit/block{i}/qkv/kernel"] for i in range(12)] == list(range(1, 13))
    assert ids["vit/norm/gamma"] == ids["vit/norm/beta"] == 13
    assert len(ids) == 4 + 12 * 12 + 2


def test_layers_of_a_resnet_follow_the_network_not_the_alphabet():
    resnet = backbones.ResNet(
        blocks=(1, 11),
        bottleneck=False,
        filters=(2, 2),
        stem="cifar",
        image_size=16,
        name="resnet",
    )
    ids = layer_ids(resnet)
    assert ids["resnet/stem_conv/kernel"] == ids["resnet/stem_norm/gamma"] == 0
    assert ids["resnet/stage1_block0/conv1/kernel"] == 1
    assert [ids[f"resnet/stage2_block{i}/norm2/beta"] for i in (0, 1, 9, 10)] == [2, 3, 11, 12]
    assert set(ids.values()) == set(range(13))
    assert len(ids) == len(resnet.trainable_variables)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda: backbones.ViT(
                6, 2, 2, patch_size=8, image_size=16, num_registers=2, use_mask_token=True
            ),
            {"registers": 0, "mask_token": 0, "class_token": 0, "block1": 2, "norm": 3},
        ),
        (
            lambda: backbones.ResNet(
                (1, 1), filters=(4, 4), padding="simclr", selective_kernels=True, image_size=32
            ),
            dict.fromkeys(
                [f"stem_{kind}{number}" for kind in ("conv", "norm") for number in ("1", "2", "")],
                0,
            )
            | {"stage2_block0": 2},
        ),
        (
            lambda: backbones.ConvNeXt((2, 1, 1), (2, 2, 4), image_size=32),
            {
                **{"downsample0_conv": 0, "downsample0_norm": 0},
                **{"stage0_block0": 1, "stage0_block1": 2},
                **{"downsample1_conv": 3, "downsample1_norm": 3, "stage1_block0": 3},
                **{"downsample2_conv": 4, "downsample2_norm": 4, "stage2_block0": 4, "norm": 5},
            },
        ),
        (
            lambda: backbones.XCiT(8, 2, 2, patch_size=4, image_size=16),
            {
                **{"patch_conv1": 0, "patch_conv2": 0, "patch_norm1": 0, "patch_norm2": 0},
                **{"position_projection": 0, "class_token": 0, "block0": 1, "block1": 2},
                **{"class_block0": 3, "class_block1": 3, "norm": 3},
            },
        ),
        (
            lambda: backbones.Swin(2, (2, 1), (1, 1), window_size=2, image_size=16),
            {
                **{"patch_embedding": 0, "patch_norm": 0, "stage0_block0": 1, "stage0_block1": 2},
                **{"downsample1": 3, "stage1_block0": 3, "norm": 4},
            },
        ),
        (
            lambda: backbones.RegNet((1, 2), (8, 12), 4, image_size=16),
            {"stem_conv": 0, "stem_norm": 0, "stage1_block0": 1, "stage2_block1": 3},
        ),
    ],
    ids=["vit", "resnet_sk", "convnext", "xcit", "swin", "regnet"],
)
def test_layers_of_the_other_networks(build, expected):
    """What comes before the first block is layer 0; what leads into a stage goes with the stage's first block."""
    network = build()
    found = {path.split("/")[1]: number for path, number in layer_ids(network).items()}
    assert {name: found.get(name) for name in expected} == expected


def test_rates_of_a_vit_b():
    """Decay 0.65 over 12 blocks: embeddings 0.65 ** 13 = 0.0037, last block 0.65, what follows 1."""
    groups = layer_decay(vit(12), 0.65)
    scales = [group.learning_rate_scale for group in groups]
    assert math.isclose(scales[0], 0.0037, rel_tol=2e-3)
    np.testing.assert_allclose(scales, [0.65**power for power in range(13, -1, -1)], rtol=1e-12)


def test_adamw_with_decayed_rates_beside_numpy():
    """Three steps, the weight decay rising; a head of its own and a network of a like name keep the whole rate."""
    rng = np.random.default_rng(0)
    network, steps, decay, rate = vit(2), 3, 0.5, 0.01
    head = keras.layers.Dense(3, name="head")
    head.build((None, 6))
    other = vit(1, name="other_vit")
    variables = [
        *network.trainable_variables,
        *head.trainable_variables,
        *other.trainable_variables,
    ]
    ramp = CosineRamp(0.1, 0.4, steps)
    optimizer = AdamW(rate, betas=(0.9, 0.95), weight_decay=ramp)
    optimizer.set_parameter_groups(layer_decay(network, decay))
    optimizer.build(variables)
    expected = [variable.numpy().astype(np.float64) for variable in variables]
    first, second = [np.zeros_like(w) for w in expected], [np.zeros_like(w) for w in expected]
    powers = {"class_token": 3, "position_table": 3, "patch_embedding": 3, "block0": 2, "block1": 1}
    for step in range(1, steps + 1):
        gradients = [rng.normal(size=w.shape) for w in expected]
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients], variables)
        weight_decay = 0.4 + (0.1 - 0.4) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        for i, (variable, g) in enumerate(zip(variables, gradients, strict=True)):
            owner, name = variable.path.split("/")[:2]
            own_rate = rate * decay ** (powers.get(name, 0) if owner == "vit" else 0)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.95 * second[i] + 0.05 * g**2
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.95**step)
            update = mean / (np.sqrt(square) + 1e-8)
            if g.ndim > 1:
                update = update + weight_decay * expected[i]
            expected[i] = expected[i] - own_rate * update
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)


def test_no_decay_is_the_plain_optimizer():
    assert {group.learning_rate_scale for group in layer_decay(vit(2), 1.0)} == {1.0}
    assert all(isinstance(group, ParameterGroup) for group in layer_decay(vit(2), 1.0))


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.1])
def test_bad_decays(decay):
    with pytest.raises(ValueError, match=f"Received: decay={decay}"):
        layer_decay(vit(1), decay)


def test_networks_without_blocks_are_refused():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(
        ValueError, match="Expected a ViT or ResNet .* Received: plain with weights"
    ):
        layer_decay(network, 0.5)
