"""DINO, iBOT, MoCo v3, MAE, I-JEPA, DINOv2 and DINOv3 against PyTorch networks with the names of their files."""

from __future__ import annotations

import numpy as np
import pytest

from keras_ssl import backbones
from keras_ssl.backbones import ViT
from keras_ssl.conversion import LAYOUTS, convert, extract
from keras_ssl.layers.transformer import swiglu_width

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; it runs the networks that ours are compared with"
)
from tests.conversion.vit_random import (  # noqa: E402
    difference,
    pictures,
    tensors_of,
)
from tests.conversion.vit_random import reference as filled_reference  # noqa: E402
from tests.conversion.vit_rows import NETWORKS, OUR_DINOV2, made, make, parity_rows  # noqa: E402


def test_features_tokens_and_every_block_equal_the_reference():
    rows = list(parity_rows())
    assert {row["reference"] for row in rows} == set(NETWORKS)
    wrong = [row for row in rows if not row["largest_relative"] < 1e-5]
    assert not wrong, wrong
    assert all(row["tensors"] == row["variables"] for row in rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_back_to_pytorch(name):
    """The way back fills a network of PyTorch strictly, in the order of its own state."""
    layout, reference, network, _ = made(name)
    tensors = extract(network, LAYOUTS[layout])
    given = {k: v for k, v in tensors_of(reference).items() if not k.startswith("local_cls_norm")}
    assert list(tensors) == list(given)
    for key, value in given.items():
        if key.endswith("qkv.bias") and reference.form.bias == "masked":
            value = value * given[f"{key}_mask"]
        np.testing.assert_array_equal(tensors[key], value)
        assert tensors[key].dtype == value.dtype
    other = filled_reference(**{**NETWORKS[name][1], "local_norm": False})
    other.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()})


@pytest.mark.parametrize("name", ["ibot", "dinov2 g", "dinov3"])
def test_mask_tokens_come_along(name):
    _, reference, network, _ = make(name)
    size = NETWORKS[name][3][0]
    patches = (size[0] // reference.form.patch) ** 2
    mask = np.arange(2 * patches).reshape(2, patches) % 3 == 0
    assert difference(reference, network, pictures(*size), mask=mask)[1] < 1e-4
    with torch.no_grad():
        getattr(reference, reference.form.mask).zero_()
    assert difference(reference, network, pictures(*size), mask=mask)[1] > 1e-2


@pytest.mark.parametrize("name", ["dino", "dinov3"])
def test_another_number_of_heads_fits_and_is_wrong(name):
    """Nothing in the file tells them apart: entries of the zoo must say the number."""
    layout, theirs, ours, sizes = NETWORKS[name]
    reference = filled_reference(**{**theirs, "width": 48, "heads": 6, "hidden": 192})
    tensors = tensors_of(reference)
    errors = []
    for heads in (6, 12):
        network = ViT(48, 2, heads, patch_size=4, image_size=16, **ours)
        if name == "dinov3":
            periods = network.rope_periods.numpy()
            tensors["rope_embed.periods"] = periods  # its length is the one thing that tells
        convert(tensors, network, LAYOUTS[layout])
        errors.append(difference(reference, network, pictures(16, 16))[1])
    assert errors[0] < 1e-4 and errors[1] > 1e-2


def test_the_sampling_of_positions_matters():
    """With the wrong one of the two kernels, or without the offset, features move by far more than rounding."""
    for name, wrong in (
        ("dinov2", {"position_offset": 0.0}),
        ("dinov2", {"position_offset": 0.0, "position_antialias": True}),
        ("dinov2 reg", {"position_antialias": False}),
    ):
        _, reference, network, _ = make(name, **wrong)
        assert difference(reference, network, pictures(48, 48))[1] > 1e-3


def test_the_table_may_be_for_another_size_than_the_network():
    """DINOv2's table is for 518 pixels, its published numbers for 224."""
    layout, reference, _, _ = made("dinov2")
    network = ViT(
        24, 2, 3, **{**OUR_DINOV2, "image_size": 48, "position_size": 111}, position_offset=0.1
    )
    convert(tensors_of(reference), network, LAYOUTS[layout])
    assert network.grid == (16, 16) and network.image_size == 48
    assert difference(reference, network, pictures(48, 48))[1] < 1e-4


def test_stored_tables_win_over_computed_ones():
    """A fixed table is taken from the file even if it is not the one that the formula gives."""
    _, reference, network, _ = made("moco v3")
    np.testing.assert_array_equal(network.position_table, reference.pos_embed.detach().numpy())
    assert not network.position_table.trainable


@pytest.mark.parametrize(
    ("name", "wrong", "received"),
    [
        ("dino", {"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon=1e-05"),
        ("dinov2", {"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon=1e-05"),
        ("dinov3", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        ("dinov3", {"positions": "learned"}, "positions='learned'"),
    ],
)
def test_a_network_of_another_form_is_refused(name, wrong, received):
    with pytest.raises(ValueError, match=f"checkpoints were trained with. Received: {received}$"):
        make(name, **wrong)


def test_what_is_left_out():
    layout, reference, network, _ = made("mae")
    more = {
        "mask_token": np.zeros((1, 1, 8)),
        "decoder_pos_embed": np.zeros((1, 17, 8)),
        "decoder_embed.weight": np.zeros((8, 24)),
        "decoder_blocks.0.attn.qkv.bias": np.zeros(24),
        "decoder_norm.weight": np.zeros(8),
        "decoder_pred.bias": np.zeros(48),
        "head.weight": np.zeros((10, 24)),
        "head.1.running_mean": np.zeros(24),
        "masked_embed": np.zeros((1, 24)),
    }
    certificate = convert({**tensors_of(reference), **more}, network, LAYOUTS[layout])
    assert certificate["left_out"] == sorted(more)
    certificate = made("dinov3 7b")[3]
    assert certificate["left_out"] == ["local_cls_norm.bias", "local_cls_norm.weight"]
    network = make("dinov2", use_mask_token=False)[2]
    assert not any("mask_token" in variable.path for variable in network.variables)


def test_training_checkpoints_of_dinov2_have_their_blocks_in_chunks():
    """A block keeps its number; that of the chunk comes before it. Heads lie beside the backbone."""
    layout, reference, network, _ = make("dinov2 g")
    chunked = {
        key.replace("blocks.0", "blocks.0.0").replace("blocks.1", "blocks.1.1"): value
        for key, value in tensors_of(reference).items()
    }
    for variable in network.variables:
        variable.assign(np.zeros(variable.shape))
    heads = {"dino_head.last_layer.weight_g": np.zeros(3), "ibot_head.mlp.0.bias": np.zeros(3)}
    certificate = convert({**chunked, **heads}, network, LAYOUTS[layout])
    assert certificate["left_out"] == sorted(heads)
    assert difference(reference, network, pictures(15, 15))[1] < 1e-4


def test_masks_of_zeros_silence_the_biases():
    """Reported of the released files: what counts is bias times mask, not bias."""
    layout, reference, network, _ = make("dinov3")
    tensors = tensors_of(reference)
    for key in list(tensors):
        if key.endswith("bias_mask"):
            tensors[key] = np.zeros_like(tensors[key])
    convert(tensors, network, LAYOUTS[layout])
    assert not network.blocks[0].query_value_bias.numpy().any()
    reference.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()})
    assert difference(reference, network, pictures(16, 16))[1] < 1e-4


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("dinov3", {"blocks.0.attn.qkv.bias_mask": np.full(72, np.nan, "float32")}, "0 for the keys"),
        ("dinov3", {"blocks.1.attn.qkv.bias_mask": np.ones(72, "float32")}, "0 for the keys"),
        ("dinov3 plus", {"blocks.0.mlp.w2.weight": None}, "without 1 .*'blocks.0.mlp.w12.weight'"),
        ("dinov3 plus", {"blocks.0.mlp.w3.weight": np.zeros((24, 8), "float32")}, "w3.weight' with shape"),
        ("dinov2 reg", {"register_tokens": None}, "'register_tokens'"),
        ("dinov2", {"register_tokens": np.zeros((1, 4, 24))}, "1 more: 'register_tokens'"),
        ("dino", {"pos_embed": np.zeros((1, 50, 24), "float32")}, r"shape \(1, 17, 24\)"),
        ("dino", {"norm.weight": None, "fc_norm.weight": np.zeros(24)}, "'norm.weight'"),
    ],
)  # fmt: skip
def test_files_of_another_network_are_refused(name, change, message):
    layout, reference, network, _ = made(name)
    tensors = {k: v for k, v in {**tensors_of(reference), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        convert(tensors, network, LAYOUTS[layout])


@pytest.mark.parametrize("layout", ["timm_vit", "dinov2", "dinov3"])
def test_other_networks_are_refused(layout):
    network = backbones.build("resnet_mini")
    with pytest.raises(ValueError, match="Expected a `ViT`. Received: ResNet"):
        convert({}, network, LAYOUTS[layout])


def parameters(settings, rows, *, patch, mask_token=True):
    """The numbers in a file, from the shapes of its tensors; `rows` of the position table, class token included."""
    width, registers = settings["width"], settings.get("num_registers", 0)
    ratio = settings.get("mlp_ratio", 4.0)
    if settings.get("ffn") == "swiglu":
        hidden = swiglu_width(width, ratio)
        perceptron = (width + 1) * 2 * hidden + (hidden + 1) * width
    else:
        hidden = int(ratio * width)
        perceptron = (width + 1) * hidden + (hidden + 1) * width
    scales = 2 * width if settings.get("layer_scale") else 0
    attention = (width + 1) * 3 * width + (width + 1) * width
    block = 4 * width + attention + perceptron + scales
    tokens = 1 + rows + registers + mask_token
    return tokens * width + (3 * patch**2 + 1) * width + settings["depth"] * block + 2 * width


@pytest.mark.parametrize(
    ("name", "registers", "expected"),
    [
        ("vit_small", 0, 88_226_304),
        ("vit_small", 4, 88_232_448),
        ("vit_base", 0, 346_321_920),
        ("vit_base", 4, 346_334_208),
        ("vit_large", 0, 1_217_474_560),
        ("vit_large", 4, 1_217_490_944),
        ("vit_giant", 0, 4_545_923_072),
        ("vit_giant", 4, 4_545_947_648),
    ],
)
def test_bytes_of_dinov2(name, registers, expected):
    settings = {**backbones.BACKBONES[name][1], "num_registers": registers, "layer_scale": 1e-5}
    assert 4 * parameters(settings, 1370, patch=14) == expected


@pytest.mark.parametrize(
    ("name", "patch", "rows", "megabytes"),
    [
        ("vit_small", 16, 197, 86.7),  # DINO
        ("vit_small", 8, 785, 86.7),
        ("vit_base", 16, 197, 343.2),
        ("vit_base", 8, 785, 343.2),
        ("vit_large", 16, 197, 1213),  # MAE
        ("vit_huge", 14, 257, 2523),
    ],
)
def test_sizes_of_dino_and_mae(name, patch, rows, megabytes):
    settings = backbones.BACKBONES[name][1]
    size = 4 * parameters(settings, rows, patch=patch, mask_token=False) / 1e6
    assert size == pytest.approx(megabytes, rel=2e-3)


def test_small_networks_have_the_tensors_of_the_file():
    """DINOv2's small network with registers in full: keys, shapes, and the formula of the other sizes."""
    settings = {"num_registers": 4, "layer_scale": 1e-5, "use_mask_token": True, "patch_size": 14}
    network = backbones.build("vit_small", image_size=518, **settings)
    tensors = extract(network, LAYOUTS["dinov2"])
    shapes = {key: value.shape for key, value in tensors.items()}
    assert 4 * sum(value.size for value in tensors.values()) == 88_232_448
    assert 4 * parameters(network.settings, 1370, patch=14) == 88_232_448
    assert len(tensors) == 4 + 2 + 12 * 14 + 2
    assert list(shapes.items())[:12] == [
        ("cls_token", (1, 1, 384)),
        ("pos_embed", (1, 1370, 384)),
        ("register_tokens", (1, 4, 384)),
        ("mask_token", (1, 384)),
        ("patch_embed.proj.weight", (384, 3, 14, 14)),
        ("patch_embed.proj.bias", (384,)),
        ("blocks.0.norm1.weight", (384,)),
        ("blocks.0.norm1.bias", (384,)),
        ("blocks.0.attn.qkv.weight", (1152, 384)),
        ("blocks.0.attn.qkv.bias", (1152,)),
        ("blocks.0.attn.proj.weight", (384, 384)),
        ("blocks.0.attn.proj.bias", (384,)),
    ]
    assert list(shapes)[-2:] == ["norm.weight", "norm.bias"]


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("vit_giant", 4096),
        ("vit_small_plus", 1536),
        ("vit_large_plus", 4096),
        ("vit_huge_plus", 5120),
        ("vit_7b", 8192),
    ],
)
def test_hidden_width_of_the_gated_perceptrons(name, hidden):
    settings = backbones.BACKBONES[name][1]
    assert swiglu_width(settings["width"], settings.get("mlp_ratio", 4.0)) == hidden
