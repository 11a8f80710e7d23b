"""The published vision transformers, small: what the reference is, what ours is, and how far they are apart."""

from __future__ import annotations

import functools

from keras_ssl.backbones import ViT
from keras_ssl.conversion import LAYOUTS, convert

# name: layout, what the reference is, what ours is beside width, depth and heads, sizes of images
DINOV2 = {"scale": True, "patch": 3, "grid": 37, "mask": "mask_token"}
OUR_DINOV2 = {"layer_scale": 1e-5, "use_mask_token": True, "patch_size": 3, "image_size": 111}
DINOV3 = {
    "scale": True,
    "registers": "storage_tokens",
    "mask": "mask_token",
    "bias": "masked",
    "positions": "rope",
    "epsilon": 1e-5,
}
OUR_DINOV3 = {
    "positions": "rope",
    "num_registers": 4,
    "layer_scale": 1e-5,
    "qkv_bias": "query_value",
    "layer_norm_epsilon": 1e-5,
    "use_mask_token": True,
}
NATIVE = (16, 16)
NETWORKS = {
    "dino": ("timm_vit", {}, {"position_offset": 0.1}, (NATIVE, (12, 20))),
    "dino 14 to 24": ("timm_vit", {"grid": 14, "patch": 2}, {"position_offset": 0.1}, ((48, 48),)),
    "ibot": (
        "timm_vit",
        {"mask": "masked_embed"},
        {"position_offset": 0.1, "use_mask_token": True},
        (NATIVE, (20, 16)),
    ),
    "moco v3": (
        "timm_vit",
        {"heads": 12, "width": 48, "hidden": 192, "positions": "size"},
        {"positions": "sincos_row_first"},
        (NATIVE,),
    ),
    "mae": (
        "timm_vit",
        {"positions": "size", "patch": 5},
        {"positions": "sincos", "patch_size": 5, "image_size": 20},
        ((20, 20), (35, 25)),
    ),
    "mae mean": (
        "timm_vit",
        {"positions": "size", "pooling": "mean"},
        {"positions": "sincos", "pooling": "mean"},
        (NATIVE,),
    ),
    "mae fine-tuned": (
        "timm_vit",
        {"positions": "size", "pooling": "fc_norm"},
        {"positions": "sincos", "pooling": "mean_then_norm"},
        (NATIVE, (8, 28)),
    ),
    "i-jepa": (
        "timm_vit",
        {"positions": "size", "token": False, "pooling": "mean", "hidden": 104},
        {"positions": "sincos", "class_token": False, "mlp_ratio": 104 / 24},
        (NATIVE,),
    ),
    "dinov2": (
        "dinov2",
        DINOV2,
        {**OUR_DINOV2, "position_offset": 0.1},
        ((48, 48), (111, 111)),
    ),
    "dinov2 reg": (
        "dinov2",
        {**DINOV2, "registers": "register_tokens", "positions": "antialias"},
        {**OUR_DINOV2, "num_registers": 4, "position_antialias": True},
        ((48, 48), (45, 51)),
    ),
    "dinov2 g": (
        "dinov2",
        {**DINOV2, "ffn": "fused", "hidden": 64, "grid": 5},
        {**OUR_DINOV2, "ffn": "swiglu", "image_size": 15, "position_offset": 0.1},
        ((15, 15), (21, 9)),
    ),
    "dinov3": ("dinov3", DINOV3, OUR_DINOV3, (NATIVE, (28, 12))),
    "dinov3 plus": (
        "dinov3",
        {**DINOV3, "ffn": "split", "patch": 5},
        {**OUR_DINOV3, "ffn": "swiglu", "mlp_ratio": 6.0, "patch_size": 5, "image_size": 15},
        ((15, 15), (35, 20)),
    ),
    "dinov3 7b": (
        "dinov3",
        {**DINOV3, "ffn": "split", "bias": "none", "hidden": 48, "local_norm": True},
        {**OUR_DINOV3, "ffn": "swiglu", "mlp_ratio": 3.0, "qkv_bias": False},
        (NATIVE, (8, 12)),
    ),
}


def pair(name, **changes):
    """Returns the reference and a new network of ours that nothing has filled."""
    from tests.conversion.vit_random import reference as filled_reference

    _, theirs, ours, _ = NETWORKS[name]
    reference = filled_reference(**theirs)
    form = reference.form
    size = {"patch_size": form.patch, "image_size": form.patch * form.grid}
    return reference, ViT(form.width, form.depth, form.heads, **{**size, **ours, **changes})


def make(name, **changes):
    """Returns the layout, the reference and a network of ours with its weights, and the certificate."""
    from tests.conversion.vit_random import tensors_of

    layout, (reference, network) = NETWORKS[name][0], pair(name, **changes)
    return layout, reference, network, convert(tensors_of(reference), network, LAYOUTS[layout])


@functools.cache
def made(name):
    """`make(name)`, once for the tests that change nothing."""
    return make(name)


def parity_rows():
    """Yields, for each published network and image size, what was compared and how far ours is from it."""
    from tests.conversion.vit_random import difference, pictures

    for name, (*_, sizes) in NETWORKS.items():
        layout, reference, network, certificate = made(name)
        for size in sizes:
            absolute, relative = difference(reference, network, pictures(*size))
            yield {
                "layout": layout,
                "reference": name,
                "tensors": certificate["tensors_used"],
                "variables": certificate["variables_filled"],
                "image_size": size,
                "largest_absolute": absolute,
                "largest_relative": relative,
            }


def rows():
    """Returns the rows for the table in `parity.py`."""
    from tests.conversion.parity import Row

    return [
        Row(
            name,
            layout,
            "PyTorch, written afresh",
            functools.partial(_row, name),
            sizes,
            ("torch",),
        )
        for name, (layout, _, _, sizes) in NETWORKS.items()
    ]


def _row(name):
    from tests.conversion.vit_random import outputs, tensors_of

    reference, network = pair(name)

    def expected(images):
        found = outputs(reference, images)
        return {key: found[key].numpy() for key in ("features", "tokens")}

    return tensors_of(reference), network, expected
