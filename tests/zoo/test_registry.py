"""The tables of published encoders: whole, consistent with the networks and layouts, quick to read, honest."""

from __future__ import annotations

import inspect
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from keras_ssl import zoo
from keras_ssl.backbones import BACKBONES
from keras_ssl.conversion import HEADS, LAYOUTS
from keras_ssl.zoo import published
from keras_ssl.zoo.converting import build_network
from keras_ssl.zoo.sources.common import resnet_payload, swin_payload, vit_payload

TABLE = published.published()
ENTRIES = list(TABLE.values())


def test_every_entry_has_a_network_a_layout_and_terms():
    for entry in ENTRIES:
        assert entry.layout in LAYOUTS, entry.name
        parameters = inspect.signature(BACKBONES[entry.backbone][0].__init__).parameters
        assert set(entry.settings) <= set(parameters), entry.name
        assert entry.licence in published.LICENCES
        assert entry.preprocessing in published.PREPROCESSING
        assert entry.image_size % entry.settings.get("patch_size", 1) == 0
        for value in entry.metrics.values():
            assert 1 < value < 100, entry.name  # in percent
        assert set(entry.settings) & {"mean", "std"} == set(), entry.name


def test_every_entry_can_be_fetched_or_says_how_to_get_it():
    addresses = []
    for entry in ENTRIES:
        for file in entry.files:
            assert not Path(file.name).is_absolute() and ".." not in file.name
            assert (file.hash_source != "") == bool(file.sha256 or file.md5), entry.name
            for url in file.urls:
                parts = urllib.parse.urlsplit(url)
                assert parts.scheme in ("http", "https") and parts.netloc and " " not in url
                if parts.scheme == "http":
                    assert any("not encrypted" in note for note in entry.notes), entry.name
            addresses += file.urls[:1]
        assert entry.access in published.ACCESS
        fetched = all(file.urls for file in entry.files)
        assert fetched == (entry.access == "open") == (entry.how == ""), entry.name
    assert len(addresses) == len(set(addresses))


def test_what_nobody_allowed_asks_for_consent():
    consent = {name for name, licence in published.LICENCES.items() if licence.consent}
    assert consent == {"cc-by-nc-4.0", "seer", "dinov3", "not-stated"}
    assert all(published.LICENCES[name].commercial is not True for name in consent)
    by_licence = {name: {e.source for e in ENTRIES if e.licence == name} for name in consent}
    assert {"swav", "moco", "mae", "byol", "ijepa", "simsiam"} <= by_licence["cc-by-nc-4.0"]
    assert by_licence["dinov3"] == {"dinov3"} and by_licence["seer"] == {"vissl"}
    assert by_licence["not-stated"] == {
        *("colorization", "lightly", "local_aggregation", "npid", "vissl"),
    }
    for name, licence in (
        ("vissl_jigsaw_rn50_goyal19_in1k", "not-stated"),
        ("vissl_colorization_alexnet_yfcc100m", "not-stated"),
        ("vissl_colorization_rn50_goyal19_yfcc100m", "not-stated"),
        ("vissl_npid_rn50_converted", "not-stated"),
        ("vissl_npid_rn50", "mit"),
        ("vissl_deepcluster_alexnet", "cc-by-nc-4.0"),
    ):
        assert TABLE[name].licence == licence, name


# Written a second time from the facts, by name.
FACTS = {
    "swav_rn50": ("swav_800ep_pretrain.pth.tar", 800, 75.3),
    "dino_vits16": ("dino_deitsmall16_pretrain.pth", 800, 77.0),
    "dinov2_vitg14_reg": ("dinov2_vitg14_reg4_pretrain.pth", None, 87.1),
    "mae_vith14": ("mae_pretrain_vit_huge.pth", 1600, 77.2),
    "moco_v2_rn50": ("moco_v2_800ep_pretrain.pth.tar", 800, 71.1),
    "moco_v3_vits16": ("vit-s-300ep.pth.tar", 300, 73.2),
    "simsiam_rn50_100ep": ("checkpoint_0099.pth.tar", 100, 68.1),
    "barlowtwins_rn50": ("resnet50.pth", 1000, 73.5),
    "barlowtwins_rn50_full": ("checkpoint.pth", 1000, 73.5),
    "dino_vits16_full": ("dino_deitsmall16_pretrain_full_checkpoint.pth", 800, 77.0),
    "vicreg_rn200x2": ("resnet200x2.pth", None, 77.3),
    "vicreg_rn50x2_full": ("resnet50x2_fullckpt.pth", None, 75.5),
    "simclr_v2_rn152w3_sk": ("model.ckpt-250228.index", None, 79.8),
    "byol_rn200x2": ("pretrain_res200x2.pkl", 1000, 79.6),
    "vissl_colorization_rn50_goyal19_in22k": (
        "converted_vissl_rn50_colorization_in22k_goyal19.torch",
        None,
        49.24,
    ),
    "seer_regnety256gf": ("model_final_checkpoint_phase0.torch", None, 77.51),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    entry = TABLE[name]
    assert (entry.files[0].name, entry.epochs, entry.metrics["linear"]) == FACTS[name]


def test_what_is_done_to_the_colors_is_on_the_card():
    for name, inside in (
        ("splitbrain_alexnet", "Inside the encoder: CIE Lab is made of the image, and 50"),
        ("colorization_vgg", "Inside the encoder: the L channel of CIE Lab"),
        ("vissl_colorization_alexnet_in1k", "Inside the encoder: the L channel of CIE Lab"),
        ("rotnet_alexnet", "Inside the encoder: subtract (0.485, 0.456, 0.406), divide"),
        ("simclr_v1_rn50", "No mean and no deviation"),
    ):
        assert inside in zoo.card(name) and zoo.card(name).count("nside the encoder") <= 1


def test_traps_that_give_no_error_of_shape():
    """Settings that no tensor's shape shows, and without which features are wrong."""
    assert TABLE["moco_v3_vits16"].settings["num_heads"] == 12
    assert TABLE["swav_rn50w5"].images.std == (0.228, 0.224, 0.225)
    assert TABLE["simclr_v2_rn50"].images.std == (1.0, 1.0, 1.0)
    assert TABLE["simclr_v2_rn50"].settings["padding"] == "simclr"
    assert TABLE["byol_rn50"].settings["padding"] == "same"
    assert TABLE["dinov2_vits14"].settings["position_offset"] == 0.1
    assert TABLE["dinov2_vits14_reg"].settings["position_antialias"] is True
    assert "position_offset" not in TABLE["dinov2_vits14_reg"].settings
    assert TABLE["dinov3_vitl16_sat"].images.mean == (0.430, 0.411, 0.296)
    assert TABLE["dinov3_vits16"].settings["layer_norm_epsilon"] == 1e-5
    assert TABLE["ibot_vitb16_in22k"].top_keys[-1] == "student"
    assert TABLE["ibot_swint_w14"].settings == {"window_size": 14}
    assert TABLE["deepercluster_vgg16"].settings == {"sobel": True, "border": 1}
    colorization = TABLE["vissl_colorization_rn50_goyal19_in1k"]
    assert colorization.settings == {"last_stride": 1, "lightness": True}


FULL = (
    "moco_v2_rn50",
    "dino_vits16",
    "dino_vits8",
    "dinov2_vits14",
    "simclr_v2_rn50",
    "ibot_swint_w14",
)


@pytest.mark.parametrize(
    "name",
    [
        "sela_rn18_1k",
        "dinov2_vits14_reg",
        "vissl_colorization_rn50_goyal19_in1k",
        "local_aggregation_rn18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in FULL),
    ],
)
def test_payload_is_that_of_the_network(name):
    """Computed from shapes here, counted in the network there; DINOv2's file also has a mask token."""
    entry = TABLE[name]
    network = build_network(entry)
    counted = 4 * sum(int(np.prod(v.shape)) for v in network.variables)
    if entry.method == "dinov2":
        counted += 4 * network.feature_dim
    if entry.payload is None:  # SimCLR: the publisher's millions, classifier included
        assert 20 < counted / 4e6 < 24
    else:
        assert counted == entry.payload


def test_payload_by_hand():
    # 23,508,032 parameters and 53,120 statistics; w2 376.1 MB, RN200-w2 1001.9 MB, ViT-H/14 2,523 MB
    assert resnet_payload("resnet50") == 4 * (23_508_032 + 53_120)
    assert round(resnet_payload("resnet50", 2) / 1e6, 1) == 376.1
    assert round(resnet_payload("resnet200", 2) / 1e6, 1) == 1001.9
    assert round(vit_payload("vit_huge") / 1e6) == 2523
    # torchvision counts 28,288,354 parameters of swin_t with its classifier of 769,000
    assert swin_payload(7) == 4 * (28_288_354 - 769_000)


def test_small_entries_build_and_run():
    image = np.random.default_rng(0).random((1, 224, 224, 3), dtype=np.float32)
    for name in (
        *("vissl_jigsaw_alexnet_in1k", "vissl_colorization_alexnet_in1k", "rotnet_alexnet"),
        *("splitbrain_alexnet", "colorization_alexnet"),
    ):
        features = build_network(TABLE[name])(image)["features"]
        assert features.shape == (1, 256) and np.ptp(features) > 0


def test_heads_are_those_of_the_conversion():
    heads = {entry.head: entry for entry in ENTRIES if entry.head}
    assert set(heads) <= set(HEADS)
    assert {"swav", "deepclusterv2", "selav2", "moco_v2", "moco_v3", "simsiam"} <= set(heads)
    assert {"dino", "barlow_twins", "vicreg"} <= set(heads)
    assert TABLE["simclr_v1_rn50"].head == ""  # not in the published file


def test_every_full_entry_has_the_network_of_the_one_without_head():
    full = {name: entry for name, entry in TABLE.items() if name.endswith(published.FULL)}
    assert len(full) == 9 + 1 + 3 + 7
    for name, entry in full.items():
        plain = TABLE[name.removesuffix(published.FULL)]
        assert not plain.head and entry.head in HEADS and entry.head_prefixes
        for field in ("backbone", "layout", "settings", "image_size", "preprocessing", "licence"):
            assert getattr(entry, field) == getattr(plain, field), name
        assert entry.files != plain.files and entry.unverified and entry.notes
        assert len(entry.top_keys) == 1 and entry.prefixes == ("backbone.",)
    student = {name for name, entry in full.items() if entry.top_keys == ("student",)}
    assert student == {"ibot_vitb16_in22k_full", "ibot_vitl16_in22k_full"}


def test_the_entry_without_head_names_the_one_with_it():
    match = "dino_vits16, whose file has no head, that of 'dino_vits16_full' has"
    with pytest.raises(ValueError, match=match):
        zoo.load("dino_vits16", include="head")
    assert '`dino`, with `include="head"`; `head.` removed' in zoo.card("dino_vits16_full")
