"""RegNetY, AlexNet, VGG, XCiT and ConvNeXt from files laid out as the official ones: the numbers of PyTorch."""

import numpy as np
import pytest

from keras_ssl import backbones
from keras_ssl.conversion import LAYOUTS, convert, extract, weights_digest

torch = pytest.importorskip("torch", reason="PyTorch computes the references")

from tests.conversion.convnet_cases import CASES, both, converted, tensors_of  # noqa: E402


def differences(expected, got):
    """Returns the largest absolute and relative difference over features, maps and layers."""
    absolute = relative = 0.0
    kind = "tokens" if "tokens" in expected else "map"
    assert len(got["layers"]) == len(expected["layers"])
    pairs = [(expected[name], got[name]) for name in ("features", kind)]
    for theirs, ours in [*pairs, *zip(expected["layers"], got["layers"], strict=True)]:
        theirs, ours = theirs.numpy(), np.asarray(ours)
        assert theirs.shape == ours.shape
        assert (
            np.ptp(theirs, axis=0).max() > 1e-4
        )  # the images tell apart, so the numbers mean something
        difference = np.abs(theirs - ours).max()
        absolute = max(absolute, difference)
        relative = max(relative, difference / np.abs(theirs).max())
    return float(absolute), float(relative)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name, case in CASES.items() for size in case.sizes]
)
def test_features_maps_and_layers_are_the_reference_s(name, size):
    expected, got, certificate = both(CASES[name], *size)
    assert differences(expected, got)[1] < 1e-5  # float32 rounding gave at most 1e-6
    assert certificate["variables_filled"] == len(converted(CASES[name])[1].variables)
    left = {key.rpartition(".")[2] for key in certificate["left_out"]}
    heads = [key for key in certificate["left_out"] if not key.endswith("num_batches_tracked")]
    assert all(key.startswith(CASES[name].exported) for key in heads)
    assert left <= {"num_batches_tracked", "weight", "bias"}


@pytest.mark.parametrize("name", CASES)
def test_extract_gives_the_file_back(name):
    """Every tensor but heads and counters, bit by bit; the reference takes them under its own names."""
    case = CASES[name]
    module, network, certificate = converted(case)
    given = tensors_of(module)
    back = extract(network, LAYOUTS[case.layout])
    assert set(back) == set(given) - set(certificate["left_out"])
    fresh = case.reference()
    rest = {key: given[key] for key in certificate["left_out"]}
    fresh.load_state_dict({k: torch.tensor(v) for k, v in {**back, **rest}.items()}, strict=True)
    for key, value in tensors_of(fresh).items():
        np.testing.assert_array_equal(value, given[key])


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("deepcluster_alexnet", lambda: backbones.AlexNet((4, 8, 12, 12, 8), sobel=True)),
        ("rotnet_alexnet", lambda: backbones.AlexNet((4, 8, 12, 12, 8))),
        ("rotnet_vgg16", lambda: backbones.VGG((1, 2), filters=(4, 8), border=1, image_size=16)),
    ],
)
def test_dense_layers_may_be_left_in_the_file(name, network):
    case, network = CASES[name], network()
    module = converted(case)[0]
    certificate = convert(tensors_of(module), network, LAYOUTS[case.layout])
    kept = extract(network, LAYOUTS[case.layout])
    assert not any("classifier" in key or "_blocks.8" in key for key in kept)
    assert any("classifier" in key or "_blocks.8" in key for key in certificate["left_out"])


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("deepcluster_alexnet", lambda key: key.replace("features.module.", "features.")),
        ("deepcluster_vgg16", lambda key: f"module.{key}"),
        ("deepercluster_vgg16", lambda key: f"module.{key}"),
        ("rotnet_vgg16", lambda key: key.removeprefix("body.")),
        ("sela_alexnet", lambda key: f"module.{key}"),
        ("regnety", lambda key: key.removeprefix("_feature_blocks.")),
        ("rotnet_alexnet", lambda key: key.removeprefix("_feature_blocks.")),
        ("convnext", lambda key: f"norms.3.{key[5:]}" if key.startswith("norm.") else key),
    ],
)
def test_prefixes_may_be_there_or_not(name, rename):
    case = CASES[name]
    module, network, certificate = converted(case)
    given, expected = tensors_of(module), certificate["sha256"]
    for variable in network.variables:
        variable.assign(variable * 0.0)
    renamed = {rename(key): value for key, value in given.items()}
    old = {key: value for key, value in renamed.items() if "num_batches" not in key}
    assert convert(old, network, LAYOUTS[case.layout])["sha256"] == expected


def test_the_vissl_copy_of_deepcluster_is_the_original():
    """VISSL renames the convolutions to feature blocks and leaves everything else out."""
    case = CASES["deepcluster_alexnet"]
    given = tensors_of(converted(case)[0])
    numbers = (0, 1, 4, 5, 8, 9, 11, 12, 14, 15)
    places = dict(zip(numbers, [f"{i}.{j}" for i in (0, 2, 4, 5, 6) for j in (0, 1)], strict=True))
    copy = {
        f"_feature_blocks.{places[int(key.split('.')[2])]}.{key.split('.')[3]}": value
        for key, value in given.items()
        if key.startswith("features.")
    }
    network = backbones.AlexNet((4, 8, 12, 12, 8), sobel=True)
    layouts = LAYOUTS["deepcluster_alexnet"], LAYOUTS["vissl_alexnet_deepcluster"]
    original, copied = (
        convert(*pair) for pair in zip((given, copy), (network,) * 2, layouts, strict=True)
    )
    assert original["sha256"] == copied["sha256"]
    assert copied["tensors_used"] == len(copy) - 5  # its counters


@pytest.mark.parametrize(
    ("name", "wrong", "received"),
    [
        ("deepcluster_alexnet", {"first_border": 3}, "first_border=3"),
        ("deepcluster_vgg16", {"border": 1}, "border=1"),
        ("deepercluster_vgg16", {"border": 0}, "border=0"),
        ("rotnet_vgg16", {"border": 0}, "border=0"),
        ("sela_alexnet", {"response_norm": True}, "response_norm=True"),
        ("rotnet_alexnet", {"stride": 2}, "stride=2"),
        ("vissl_alexnet_jigsaw", {"stride": 4, "first_border": 2}, "stride=4, first_border=2"),
        ("vissl_alexnet_jigsaw", {"response_norm": False}, "response_norm=False"),
        ("vissl_alexnet_colorization", {"first_border": 2}, "first_border=2"),
        (
            "vissl_alexnet_colorization",
            {"lightness": False, "mean": [0.5] * 3, "std": [1.0] * 3},
            "lightness=False",
        ),
        ("vissl_alexnet_deepcluster", {"sobel": False}, "sobel=False"),
    ],
)
def test_a_network_of_another_form_is_refused(name, wrong, received):
    """Its variables may have the same shapes: nothing else would say so."""
    case = CASES[name]
    network = case.network()
    other = type(network).from_config({**network.get_config(), **wrong})
    message = f"as {case.layout} checkpoints were trained with. Received: {received}$"
    with pytest.raises(ValueError, match=message):
        convert(tensors_of(case.reference()), other, LAYOUTS[case.layout])
    with pytest.raises(ValueError, match="Expected a `(AlexNet|VGG)`. Received: ConvNeXt"):
        extract(CASES["convnext"].network(), LAYOUTS[case.layout])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("deepcluster_alexnet", {"sobel.1.weight": np.zeros((2, 1, 3, 3))}, "fixed Sobel filter"),
        ("deepercluster_vgg16", {"sobel.0.bias": np.ones(1)}, "fixed Sobel filter"),
        ("convnext", {"norms.3.bias": np.zeros(20)}, "two different ones"),
        ("regnety", {"heads.0.weight": np.zeros(3)}, "1 more"),
        ("xcit_p8", {"pos_embed": np.zeros(3)}, "1 more: 'pos_embed'"),
        (
            "regnety",
            {"_feature_blocks.res2.block1-0.f.se.excitation.0.weight": np.zeros((4, 8, 1, 1))},
            r"shape \(2, 8, 1, 1\)",
        ),
    ],
)
def test_what_is_not_the_file_is_refused(name, change, message):
    case = CASES[name]
    module, network, certificate = converted(case)
    with pytest.raises(ValueError, match=message):
        convert({**tensors_of(module), **change}, network, LAYOUTS[case.layout])
    assert weights_digest(network) == certificate["sha256"]  # nothing was assigned
