"""Swin from files laid out as iBOT's: PyTorch's numbers, every name and shape, and what is refused."""

import numpy as np
import pytest

from keras_ssl import backbones, export
from keras_ssl.conversion import LAYOUTS, convert, extract, weights_digest
from keras_ssl.evaluation import probe_features
from keras_ssl.layers import shift_mask
from tests.conversion import parity, swin_rows

torch = pytest.importorskip("torch", reason="PyTorch computes the references")

from keras_ssl.conversion.references import torch_swin  # noqa: E402
from tests.conversion.convnet_cases import outputs_of, tensors_of  # noqa: E402
from tests.without_values import without_values  # noqa: E402

SWIN = LAYOUTS["swin"]


@pytest.fixture(scope="module")
def small():
    """The reference, our network with its weights, the certificate and the file's tensors."""
    module, network = swin_rows.reference("swin_w5"), swin_rows.network("swin_w5")
    tensors = tensors_of(module)
    return module, network, convert(tensors, network, SWIN), tensors


@pytest.mark.parametrize("row", [row.parameter for row in parity.rows("swin_rows")])
def test_features_and_maps_are_the_reference_s(row):
    measured = parity.measure(row)
    assert measured["relative"] < 1e-5  # float32 rounding gave at most 2e-6
    assert measured["variables"] == measured["tensors"]
    assert measured["left_out"] == sum(swin_rows.BLOCKS) + 2  # indices and the classifier


@pytest.mark.parametrize("name", swin_rows.SHAPES)
def test_windows_are_settled_by_the_size_that_the_network_is_built_for(name):
    stages = swin_rows.network(name).stages
    assert tuple((s[0].window_size, s[1].shift) for s in stages) == swin_rows.SHAPES[name]
    assert {block.shift for stage in stages for block in stage[::2]} == {0}


def test_layers_and_ibot_s_features_of_the_linear_probe(small):
    """The maps after each block; the last stage's normalized, the others not; means of the last four."""
    module, network, _, _ = small
    images = np.random.default_rng(1).uniform(size=(2, 52, 60, 3)).astype("float32")
    expected = outputs_of(module, network, images)["layers"]
    layers = network(images, output="layers")["layers"]
    assert len(layers) == len(expected) == 9
    for ours, theirs in zip(layers, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)
    probed = probe_features(network, images)
    means = torch.cat([layer.mean((1, 2)) for layer in expected[-4:]], 1)
    assert probed.shape == (2, 2 * 32 + 2 * 64)
    np.testing.assert_allclose(probed, means.numpy(), rtol=1e-4, atol=1e-4)
    for arguments, message in (
        ({"last_blocks": 10}, r"\[1, 9\]"),
        ({"with_mean_patches": True}, "with_mean_patches=False for a `Swin`"),
    ):
        with pytest.raises(ValueError, match=message):
            probe_features(network, images, **arguments)


def test_extract_gives_the_file_back_in_its_order(small):
    """Every tensor but the classifier, indices included, bit by bit."""
    _, network, certificate, given = small
    back = extract(network, SWIN)
    assert list(back) == [key for key in given if not key.startswith("head.")]
    for key, value in back.items():
        assert value.dtype == given[key].dtype
        np.testing.assert_array_equal(value, given[key])
    assert set(certificate["left_out"]) == {
        "head.weight",
        "head.bias",
        *(key for key in given if key.endswith("relative_position_index")),
    }


def test_pytorch_loads_what_export_writes(small, tmp_path):
    module, network, _, given = small
    export.write_for_torch(network, tmp_path / "swin.pth")
    stored = torch.load(tmp_path / "swin.pth", weights_only=True)
    assert stored["keras_ssl"]["layout"] == "swin"
    assert stored["keras_ssl"]["settings"]["window_size"] == 5
    fresh = torch_swin.Swin(8, swin_rows.BLOCKS, swin_rows.HEADS, 5, 52)
    fresh.load_state_dict(stored["state_dict"], strict=True)
    for key, value in tensors_of(fresh).items():
        np.testing.assert_array_equal(value, given[key])


def test_masks_and_mask_tokens_may_be_in_the_file(small):
    """microsoft/Swin-Transformer stores masks; a student of iBOT has a token for hidden patches."""
    _, network, certificate, given = small
    more = {
        "layers.0.blocks.1.attn_mask": shift_mask((15, 15), 5, 2),
        "masked_embed": np.zeros((1, 8), "float32"),
    }
    got = convert(given | more, network, SWIN)
    assert got["sha256"] == certificate["sha256"]
    assert set(got["left_out"]) == set(certificate["left_out"]) | set(more)
    without = {k: v for k, v in given.items() if not k.endswith("relative_position_index")}
    assert convert(without, network, SWIN)["sha256"] == certificate["sha256"]


INDEX = "layers.0.blocks.0.attn.relative_position_index"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {INDEX: t[INDEX].T}, "as microsoft/Swin-Transformer computes it"),
        (lambda t: {INDEX: t[INDEX][0]}, r"shape=\(25,\)"),
        (lambda t: {"layers.0.blocks.1.attn_mask": shift_mask((15, 15), 5, 3)}, "attn_mask"),
        (lambda t: {"absolute_pos_embed": np.zeros((1, 9, 8))}, "1 more: 'absolute_pos_embed'"),
        (
            lambda t: {INDEX.replace("index", "bias_table"): np.zeros((169, 1))},
            r"shape \(81, 1\). Received: shape=\(169, 1\)",
        ),
    ],
)
def test_what_is_not_the_file_is_refused(small, change, message):
    _, network, certificate, given = small
    with pytest.raises(ValueError, match=message):
        convert({**given, **change(given)}, network, SWIN)
    assert weights_digest(network) == certificate["sha256"]  # nothing was assigned


def test_another_network_is_refused(small):
    other = backbones.ConvNeXt((1, 1), (4, 8), image_size=16)
    with pytest.raises(ValueError, match="Expected a `Swin`. Received: ConvNeXt"):
        convert(small[3], other, SWIN)


# name, window, parameters without classifier: torchvision's documentation of swin_t, swin_s and swin_b counts
# 28,288,354, 49,606,258 and 87,768,224 with a classifier of 1000 classes
SIZES = {
    "swin_tiny": (7, 28_288_354 - 769_000),
    "swin_tiny ": (14, 27_569_754),  # by hand: (27^2 - 13^2) (2*3 + 2*6 + 6*12) = 50,400 more
    "swin_small": (7, 49_606_258 - 769_000),
    "swin_base": (7, 87_768_224 - 1_025_000),
}


@pytest.mark.parametrize(
    "name",
    [name if "tiny" in name else pytest.param(name, marks=pytest.mark.slow) for name in SIZES],
)
def test_every_shape_of_the_published_sizes(name):
    window, parameters = SIZES[name]
    with without_values():  # shapes without values
        network = backbones.build(name.strip(), window_size=window)
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == parameters
    settings = network.settings
    with torch.device("meta"):
        shape = (settings["width"], settings["blocks"], settings["num_heads"])
        module = torch_swin.Swin(*shape, window)
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    ports = SWIN.ports(network)
    assert {id(port.variable) for port in ports} == {id(v) for v in network.variables}
    for port in ports:
        empty = np.broadcast_to(np.bool_(0), tuple(port.variable.shape))
        assert port.turn.to_source(empty).shape == expected.pop(port.key), port.key
    assert all(key.endswith("_index") for key in expected)
