"""ResNets of other people's checkpoints: the same features, every tensor accounted for, and back again."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from keras_ssl import backbones
from keras_ssl.backbones import ResNet
from keras_ssl.conversion import LAYOUTS, convert, extract
from tests.conversion import fixtures, parity, resnet_rows

ROWS = parity.rows("resnet_rows")
TOLERANCE = 1e-4  # of the largest number; measured: about 1e-6


def relative(got, expected):
    return np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("row", [row.parameter for row in ROWS])
def test_features_equal_the_reference(row):
    """Odd and even sizes, running statistics far from 0 and 1; every variable filled."""
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it makes the reference")
    measured = parity.measure(row)
    assert measured["relative"] < TOLERANCE
    assert measured["tensors"] == measured["variables"]


@pytest.mark.parametrize("settings", [{}, {"bottleneck": False}, {"width": 2}], ids=str)
def test_pytorch_loads_what_is_extracted(settings):
    """The other way: the state dict loads strictly into a PyTorch module, which gives the features of the network."""
    pytest.importorskip("torch", reason="torch is not installed; it makes the reference")
    from keras_ssl.conversion.references import running, torch_resnets

    plan = {"blocks": (1, 2), "filters": (4, 6), **settings}
    network = ResNet(**plan, image_size=32)
    rng = np.random.default_rng(3)
    for variable in network.variables:
        positive = "gamma" in variable.path or "variance" in variable.path
        if "kernel" not in variable.path:
            variable.assign(rng.uniform(0.5 if positive else -0.5, 1.5, variable.shape))
    tensors = extract(network, LAYOUTS["torchvision_resnet"])
    names = fixtures.torchvision_shapes(**plan, counters=False)
    assert {key: value.shape for key, value in tensors.items()} == names
    assert list(tensors) == list(names)
    reference = running.load_strictly(torch_resnets.ResNet(**plan), tensors)
    images = fixtures.pictures(47)
    prepared = functools.partial(running.normalized, mean=network.mean, std=network.std)
    expected = running.torch_run(reference, prepared)(images)["features"]
    assert relative(network(images)["features"], expected) < TOLERANCE


def test_resnet50_of_full_size_has_the_official_tensors():
    """Name for name and shape for shape in file order; 23,508,032 parameters and 53 batch-norms (53,120 statistics)."""
    network, layout = backbones.build("resnet50"), LAYOUTS["torchvision_resnet"]
    found = {key: value.shape for key, value in extract(network, layout).items()}
    official = fixtures.torchvision_shapes(counters=False)
    assert found == official and list(found) == list(official)
    assert list(official)[5:7] == ["layer1.0.conv1.weight", "layer1.0.bn1.weight"]
    assert official["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert official["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    count = {key: int(np.prod(shape)) for key, shape in official.items()}
    statistics = [key for key in count if "running" in key]
    assert sum(count.values()) - sum(count[key] for key in statistics) == 23_508_032
    assert (len(statistics), sum(count[key] for key in statistics)) == (2 * 53, 53_120)
    # As a real file: with counters and a classifier.
    whole = fixtures.torchvision_shapes(fc=1000)
    tensors = {key: np.zeros(shape, np.float32) for key, shape in whole.items()}
    certificate = convert(tensors, network, layout)
    assert (certificate["tensors_used"], len(certificate["left_out"])) == (265, 53 + 2)


@pytest.mark.parametrize(
    ("blocks", "width", "selective", "millions", "norms"),
    [
        ((3, 4, 6, 3), 1, False, 24, 53),
        ((3, 4, 6, 3), 1, True, 35, 2 + 53 + 16),
        ((3, 4, 6, 3), 2, True, 140, 2 + 53 + 16),
        ((3, 8, 36, 3), 3, True, 795, 2 + 155 + 50),
    ],
)
def test_simclr_shapes_are_those_of_the_paper(blocks, width, selective, millions, norms):
    """Chen et al., 2020, "Big self-supervised models", table 1: parameters in millions, running statistics left out."""
    shapes = fixtures.simclr_shapes(blocks, width=width, selective=selective)
    trained = [int(np.prod(v)) for key, v in shapes.items() if "moving" not in key]
    assert round(sum(trained) / 1e6) == millions
    assert sum(key.endswith("gamma") for key in shapes) == norms


@pytest.mark.slow
@pytest.mark.parametrize("selective", [False, True])
def test_simclr_of_full_size_has_the_official_tensors(selective):
    network = ResNet((3, 4, 6, 3), padding="simclr", selective_kernels=selective, image_size=64)
    found = {k: v.shape for k, v in extract(network, LAYOUTS["simclr_tf1"]).items()}
    official = fixtures.simclr_shapes(selective=selective)
    assert found == {f"base_model/{key}": shape for key, shape in official.items()}


@pytest.mark.slow
def test_byol_of_full_size_has_the_official_tensors():
    network = backbones.build("resnet50", padding="same")
    found = {k: v.shape for k, v in extract(network, LAYOUTS["byol_haiku"]).items()}
    params, state = (fixtures.flat(part) for part in fixtures.byol_shapes())
    used = {key for key in state if key.endswith("average")}
    official = {key: {**params, **state}[key] for key in {*params, *used}}
    assert found == {key.removeprefix("res_net50/~/"): v for key, v in official.items()}


@pytest.mark.parametrize(
    ("layout", "right", "wrong"),
    [
        ("simclr_tf1", "simclr", "torch"),
        ("byol_haiku", "same", "torch"),
        ("byol_haiku", "same", "simclr"),
    ],
)
def test_the_padding_matters_at_even_sizes(layout, right, wrong):
    """The variables fit either way, so the layout refuses; here is what would have come of it."""
    make = {"simclr": resnet_rows.simclr_tf1, "same": resnet_rows.byol}[right]
    tensors, network, expected = make()
    config = {**network.get_config(), "padding": wrong}
    other = ResNet.from_config(config)
    with pytest.raises(ValueError, match=f"padding='{right}'.*Received: padding='{wrong}'"):
        convert(tensors, other, LAYOUTS[layout])
    convert(tensors, network, LAYOUTS[layout])
    other.set_weights(network.get_weights())
    images = fixtures.pictures(64)
    assert relative(other(images)["features"], expected(images)["features"]) > 1e-2


@pytest.mark.parametrize(
    ("layout", "settings", "received"),
    [
        ("torchvision_resnet", {"last_stride": 1}, "last_stride=1"),
        ("torchvision_resnet", {"lightness": True}, "lightness=True"),
        ("vissl_resnet_colorization", {"lightness": True}, "last_stride=2"),
        ("vissl_resnet_colorization", {"last_stride": 1}, "lightness=False"),
        ("simclr_tf1", {"padding": "simclr", "last_stride": 1}, "last_stride=1"),
    ],
)
def test_another_stride_or_front_is_refused(layout, settings, received):
    """The stride changes no shape; nothing else would say so."""
    network = ResNet((1, 1), filters=(4, 4), image_size=32, **settings)
    with pytest.raises(ValueError, match=f"were trained with. Received: {received}"):
        extract(network, LAYOUTS[layout])


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="Expected a `ResNet`. Received: ViT"):
        extract(backbones.build("vit_mini"), LAYOUTS["torchvision_resnet"])
    with pytest.raises(ValueError, match="without selective kernels"):
        selective = ResNet((1,), filters=(4,), selective_kernels=True, image_size=32)
        extract(selective, LAYOUTS["torchvision_resnet"])
    with pytest.raises(ValueError, match="bottleneck blocks"):
        basic = ResNet((1,), filters=(4,), bottleneck=False, padding="same", image_size=32)
        extract(basic, LAYOUTS["byol_haiku"])


def test_heads_queues_and_counters_are_left_out_and_nothing_else():
    network = ResNet((1,), filters=(4,), image_size=32)
    tensors = fixtures.random_tensors(fixtures.torchvision_shapes((1,), (4,), counters=False))
    heads = ["fc.0.weight", "projection_head.3.bias", "prototypes.prototypes0.weight", "queue"]
    extra = {key: np.zeros(3) for key in [*heads, "queue_ptr", "module.projector.0.weight"]}
    certificate = convert({**tensors, **extra}, network, LAYOUTS["torchvision_resnet"])
    assert certificate["left_out"] == sorted(extra)
    for key in ("layer5.0.conv1.weight", "conv1.bias", "layer1.0.se.weight"):
        with pytest.raises(ValueError, match=f"1 more: '{key}'"):
            convert({**tensors, key: np.zeros(3)}, network, LAYOUTS["torchvision_resnet"])
    with pytest.raises(ValueError, match="is it the checkpoint of another size"):
        wide = fixtures.torchvision_shapes((1,), (4,), width=2, counters=False)
        convert(fixtures.random_tensors(wide), network, LAYOUTS["torchvision_resnet"])
