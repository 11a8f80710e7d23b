"""Entries of the tables with small networks, and files of PyTorch laid out as their publishers write them."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_ssl import zoo
from keras_ssl.zoo import converting, published

TABLE = published.published()
RESNET = {"blocks": (1, 1), "filters": (4, 6), "bottleneck": True}
VIT = {"width": 24, "depth": 2, "num_heads": 3}
SWIN = {"width": 8, "blocks": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)}
ZERO = np.zeros(3, np.float32)


def under(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def nested(dotted, tree):
    for key in reversed(dotted.split(".")):
        tree = {key: tree}
    return tree


# What the files hold beside the encoder, by who wrote them: (entry, small settings, tree of the file).
TORCH = [
    (
        "swav_rn50",
        RESNET,
        lambda t: under(
            "module.", t | {"projection_head.0.weight": ZERO, "prototypes.weight": ZERO}
        ),
    ),
    (
        "deepclusterv2_rn50",
        RESNET,
        lambda t: {"state_dict": under("module.", t | {"prototypes.prototypes2.weight": ZERO})},
    ),
    ("dino_rn50", RESNET, lambda t: t),
    (
        "moco_v3_rn50",
        RESNET,
        lambda t: {
            "state_dict": under("module.base_encoder.", t | {"fc.0.weight": ZERO})
            | under("module.momentum_encoder.", t)
            | {"module.predictor.0.weight": ZERO},
            "optimizer": {"state": {0: {"mu": ZERO}}},
        },
    ),
    (
        "simsiam_rn50_100ep",
        RESNET,
        lambda t: {"state_dict": under("module.encoder.", t) | {"module.predictor.0.weight": ZERO}},
    ),
    ("vicreg_rn50", RESNET, lambda t: t),
    (
        "vicreg_rn50x2",
        RESNET,
        lambda t: {"model": under("module.backbone.", t) | {"module.projector.0.weight": ZERO}},
    ),
    ("densecl_rn50_coco", RESNET, lambda t: {"state_dict": t}),
    (
        "lightly_dino_rn50",
        RESNET,
        lambda t: {
            "state_dict": under("backbone.", t)
            | under("student_backbone.", t)
            | {"projection_head.layers.0.weight": ZERO, "online_classifier.weight": ZERO},
            "epoch": 99,
        },
    ),
    (
        "vissl_simclr_rn50w2_100ep",
        {**RESNET, "width": 2},
        lambda t: nested(
            "classy_state_dict.base_model.model",
            {"trunk": under("_feature_blocks.", t), "heads": {"0.clf.0.weight": ZERO}},
        ),
    ),
    (
        "vissl_colorization_rn50_goyal19_in22k",
        RESNET,
        lambda t: nested(
            "classy_state_dict.base_model.model",
            {"trunk": under("_feature_blocks.", t), "heads": {"0.clf.0.weight": ZERO}},
        ),
    ),
    (
        "vissl_swav_regnety16gf",
        {"blocks": (1, 1), "filters": (8, 16), "group_width": 8},
        lambda t: nested(
            "classy_state_dict.base_model.model", {"trunk": t, "heads": {"0.weight": ZERO}}
        ),
    ),
    (
        "dino_vits16",
        VIT,
        lambda t: {
            "student": under("module.backbone.", {k: v + 1 for k, v in t.items()}),
            "teacher": under("backbone.", t) | {"head.last_layer.weight_g": ZERO},
            "epoch": 800,
        },
    ),
    ("dino_vitb8", VIT, lambda t: t),
    (
        "moco_v3_vits16",
        {**VIT, "num_heads": 12},
        lambda t: {
            "state_dict": under("module.base_encoder.", t | {"head.0.weight": ZERO})
            | under("module.momentum_encoder.", t)
        },
    ),
    ("mae_vitb16", VIT, lambda t: {"model": t | {"mask_token": ZERO, "decoder_pos_embed": ZERO}}),
    ("mae_vitb16_finetuned", VIT, lambda t: {"model": t | {"head.weight": ZERO}}),
    ("ibot_vitb16_in22k", VIT, lambda t: {"state_dict": t | {"masked_embed": ZERO}}),
    ("ibot_swint_w7", SWIN, lambda t: {"state_dict": t}),
    (
        "ibot_swint_w14",
        SWIN,
        lambda t: {
            "student": under("module.backbone.", {k: v + 1 for k, v in t.items()}),
            "teacher": under("backbone.", t) | {"head.mlp.0.bias": ZERO},
            "epoch": 300,
        },
    ),
    (
        "ijepa_vith14",
        VIT,
        lambda t: {"target_encoder": under("module.", t), "encoder": under("module.", t)},
    ),
    ("dinov2_vits14", VIT, lambda t: t | {"mask_token": ZERO}),
    ("dinov2_vitb14_reg", VIT, lambda t: t),
    ("dinov3_vits16", VIT, lambda t: t | {"mask_token": ZERO, "local_cls_norm.weight": ZERO}),
    ("dino_xcit_s12_p16", {"width": 32, "depth": 1, "num_heads": 4, "class_depth": 1}, lambda t: t),
    (
        "dinov3_convnext_tiny",
        {"blocks": (1, 1, 1, 1), "filters": (4, 6, 8, 10)},
        lambda t: t | {f"norms.3.{k}": t[f"norm.{k}"] for k in ("weight", "bias")},
    ),
    (
        "deepcluster_alexnet",
        {"filters": (4, 6, 6, 6, 4)},
        lambda t: {"state_dict": t | {"top_layer.weight": ZERO, "classifier.1.weight": ZERO}},
    ),
    (
        "deepercluster_vgg16",
        {"blocks": (1, 1), "filters": (4, 6)},
        lambda t: {"state_dict": under("module.", t | {"pred_layer.weight": ZERO})},
    ),
    ("rotnet_alexnet", {"filters": (4, 6, 6, 6, 4)}, lambda t: {"network": t}),
    (
        "colorization_vgg_torch",
        {"blocks": (1,) * 7, "filters": (4,) * 7},
        lambda t: t | {"model8.0.weight": ZERO, "model_out.weight": ZERO},
    ),
]


def small(name, settings, monkeypatch):
    """Registers the entry with a small network and without known hashes; returns it and the network, filled."""
    entry = TABLE[name]
    files = tuple(dataclasses.replace(f, size=None, sha256="", md5="") for f in entry.files)
    settings = {**entry.settings, **settings}
    entry = dataclasses.replace(entry, settings=settings, image_size=112, files=files)
    if "position_size" in settings:
        entry.settings["position_size"] = 70
    monkeypatch.setattr(published, "published", lambda: {name: entry})
    network = converting.build_network(entry)
    rng = np.random.default_rng(0)
    for variable in network.variables:
        value = variable.numpy() + 0.1 * rng.standard_normal(variable.shape)
        variable.assign(np.abs(value) if "variance" in variable.path else value)
    return entry, network


def check(entry, network, path):
    images = np.random.default_rng(1).random((1, 112, 112, 3), dtype=np.float32)
    expected = np.asarray(network(images)["features"])
    assert np.ptp(expected) > 0
    loaded = zoo.load(entry.name, weights=path, accept_licence=True)
    assert loaded.get_config() == network.get_config()
    np.testing.assert_allclose(loaded(images)["features"], expected, rtol=1e-5, atol=1e-5)
