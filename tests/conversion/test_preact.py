"""Local Aggregation's network from checkpoints laid out as the authors' code saves them: the numbers of PyTorch."""

import numpy as np
import pytest

from keras_ssl import backbones
from keras_ssl.conversion import LAYOUTS, convert, extract, read_head, weights_digest
from tests.conversion import parity, preact_rows
from tests.without_values import without_values

pytest.importorskip("torch", reason="PyTorch computes the reference")

LAYOUT = LAYOUTS["local_aggregation_tf1"]
IMAGES = np.random.default_rng(1).uniform(size=(2, 45, 50, 3)).astype("float32")


@pytest.mark.parametrize("row", [row.parameter for row in preact_rows.rows()])
def test_features_and_map_are_the_reference_s(row):
    assert parity.measure(row)["relative"] < 1e-5  # float32 rounding gave at most 1e-6


def test_the_maps_of_all_stages_are_the_reference_s():
    own, tensors = preact_rows.checkpoint()
    network = preact_rows.network()
    certificate = convert(tensors, network, LAYOUT)
    assert certificate["variables_filled"] == certificate["tensors_used"] == len(own) - 2
    expected = preact_rows.expected(own, False, IMAGES)
    got = network(IMAGES, output="layers")
    assert np.ptp(expected["features"], axis=0).max() > 0.05
    for theirs, ours in zip(expected["layers"], got["layers"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("scope", ["instance/", "model_0/__var_copy_0/"])
def test_any_one_scope_will_do(scope):
    network = preact_rows.network()
    digests = [convert(preact_rows.checkpoint(s)[1], network, LAYOUT) for s in ("", scope)]
    assert digests[0]["sha256"] == digests[1]["sha256"]
    slots = preact_rows.checkpoint("__opt__/")[1]  # momenta under the names of what they belong to
    slots = {k: 0 * v for k, v in slots.items() if k.startswith("__opt__/") and "moving" not in k}
    both = {**preact_rows.checkpoint(scope)[1], **slots}
    assert convert(both, network, LAYOUT)["sha256"] == digests[0]["sha256"]
    head, _ = read_head("local_aggregation", both)
    own = preact_rows.checkpoint()[0]
    np.testing.assert_array_equal(head.projector.dense_layers[0].kernel, own["dense/kernel"])


def test_extract_gives_the_file_back():
    own, tensors = preact_rows.checkpoint()
    network = preact_rows.network()
    certificate = convert(tensors, network, LAYOUT)
    back = extract(network, LAYOUT)
    assert list(back)[0] == "resnet_model/conv2d/kernel"
    assert len(certificate["left_out"]) == len(tensors) - len(back)
    for key, value in back.items():
        np.testing.assert_array_equal(value, tensors[key])


def test_every_shape_of_the_official_network():
    """17 batch-norms and 21 convolutions: one in the stem, 16 in blocks, and a shortcut in each of four stages."""
    expected = preact_rows.shapes((2, 2, 2, 2), (64, 128, 256, 512))
    with without_values():
        network = backbones.build("resnet18_preact")
    ports = LAYOUT.ports(network)
    assert {p.key: tuple(p.variable.shape) for p in ports} == {
        f"resnet_model/{key}": shape for key, shape in expected.items()
    }
    assert "conv2d_20/kernel" in expected and "batch_normalization_16/gamma" in expected
    assert "conv2d_21/kernel" not in expected and "batch_normalization_17/gamma" not in expected
    assert expected["conv2d_1/kernel"] == (1, 1, 64, 64)
    assert network.feature_dim == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "moving" not in k}, "Received: 0 of them"),
        (lambda t: t | {f"a/{k}": v for k, v in t.items()}, "Received: 2 of them"),
        (
            lambda t: t | {"resnet_model/batch_normalization_9/gamma": np.zeros(8)},
            "1 more: 'resnet_model/batch_normalization_9/gamma'",  # as version 1 has
        ),
        (
            lambda t: {k: v for k, v in t.items() if "conv2d_8/kernel" not in k},
            "without 1 of them: 'resnet_model/conv2d_8/kernel'",
        ),
    ],
)
def test_what_is_not_the_file_is_refused(change, message):
    network = preact_rows.network()
    before = weights_digest(network)
    with pytest.raises(ValueError, match=message):
        convert(change(preact_rows.checkpoint()[1]), network, LAYOUT)
    with pytest.raises(ValueError, match="Expected a `PreActResNet`. Received: ResNet"):
        LAYOUT.ports(backbones.ResNet((1,), filters=(4,), image_size=32))
    assert weights_digest(network) == before
