"""Entries as they stand in the tables load files that are laid out as their publishers write them.

Each network is made small; places, prefixes, containers, layouts and all that no shape shows are the entry's own.
"""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import checkpoints, zoo
from keras_ssl.backbones import EncoderWithHead
from keras_ssl.conversion import LAYOUTS, build_head, extract
from keras_ssl.zoo import published
from keras_ssl.zoo.published import File
from tests.checkpoints import makers
from tests.zoo.families import RESNET, TORCH, ZERO, check, small, under

# One of each layout in every run, the others in the long one.
QUICK = (
    *("swav_rn50", "moco_v3_rn50", "vissl_swav_regnety16gf"),
    "vissl_colorization_rn50_goyal19_in22k",
    *("dino_vits16", "mae_vitb16_finetuned", "dinov2_vitb14_reg", "dinov3_vits16"),
    *("dino_xcit_s12_p16", "dinov3_convnext_tiny", "deepcluster_alexnet", "deepercluster_vgg16"),
    "ibot_swint_w7",
)


@pytest.mark.parametrize(
    "name, settings, tree",
    [
        pytest.param(*row, id=row[0], marks=() if row[0] in QUICK else pytest.mark.slow)
        for row in TORCH
    ],
)
def test_files_of_pytorch(name, settings, tree, tmp_path, monkeypatch):
    entry, network = small(name, settings, monkeypatch)
    path = tmp_path / "file"
    checkpoints.write_torch(path, {}, tree(extract(network, LAYOUTS[entry.layout])))
    check(entry, network, path)


@pytest.mark.parametrize(
    "name, top, prefix",
    [
        ("swav_rn50", "", "module."),
        ("moco_v2_rn50", "state_dict", "module.encoder_q."),
        pytest.param("moco_v3_rn50", "state_dict", "module.base_encoder.", marks=pytest.mark.slow),
    ],
)
def test_the_head_comes_along(name, top, prefix, tmp_path, monkeypatch):
    entry, network = small(name, RESNET, monkeypatch)
    prototypes = (5,) if name == "swav_rn50" else ()
    head = build_head(entry.head, 24, widths=(8, 4), prototypes=prototypes)
    tensors = extract(network, LAYOUTS[entry.layout])
    tensors |= extract(head, LAYOUTS[f"{entry.head}_head"])
    checkpoints.write_torch(tmp_path / "file", under(prefix, tensors), key=top)
    loaded = zoo.load(name, tmp_path / "file", include="head", accept_licence=True)
    images = np.random.default_rng(1).random((2, 112, 112, 3), dtype=np.float32)
    expected = EncoderWithHead(network, head)(images)
    assert set(expected) == {"features", "map", "projection", *(["scores"] if prototypes else [])}
    for key, value in expected.items():
        np.testing.assert_allclose(loaded(images)[key], value, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected["projection"]) > 0
    assert set(zoo.load(name, tmp_path / "file", accept_licence=True)(images)) == {
        "features",
        "map",
    }


def test_a_file_without_head_says_so(tmp_path, monkeypatch):
    entry, network = small("swav_rn50", RESNET, monkeypatch)
    path = tmp_path / "file"
    tensors = under("module.", extract(network, LAYOUTS[entry.layout]))
    checkpoints.write_torch(path, tensors)
    with pytest.raises(ValueError, match="Expected a head in the file of swav_rn50; .* none there"):
        zoo.load("swav_rn50", path, include="head", accept_licence=True)
    assert zoo.load("swav_rn50", path, accept_licence=True).feature_dim == 24
    with pytest.raises(
        ValueError, match="include=.features. for dino_rn50, whose file has no head"
    ):
        small("dino_rn50", RESNET, monkeypatch)
        zoo.load("dino_rn50", path, include="head")
    with pytest.raises(ValueError, match="include to be 'features', 'tokens' or 'head'"):
        zoo.load("dino_rn50", path, include="heads")


@pytest.mark.parametrize(
    "name, settings, more",
    [
        (
            "splitbrain_alexnet",
            {"filters": (4, 6, 6, 6, 4)},
            {"fc6": [np.zeros((3, 4, 6, 6)), ZERO], "fc7": [np.zeros((3, 3, 1, 1)), ZERO]},
        ),
        (
            "colorization_alexnet",
            {"filters": (4, 6, 6, 6, 4)},
            {"fc6": [np.zeros((3, 4, 6, 6)), ZERO]},
        ),
        (
            "colorization_vgg_norebal",
            {"blocks": (1, 2, 1, 1, 1, 1, 1), "filters": (4,) * 7},
            {"data_l_meansub": [ZERO[:1], ZERO[:1]], "conv8_313": [np.zeros((3, 4, 1, 1)), ZERO]},
        ),
    ],
)
def test_caffemodels(name, settings, more, tmp_path, monkeypatch):
    """Every layer of the official network with weights, in its order; others before and after."""
    entry, network = small(name, settings, monkeypatch)
    layers = {}
    for key, value in extract(network, LAYOUTS[entry.layout]).items():
        layers.setdefault(key.rpartition(".")[0], []).append(value)
    layers |= {k: [value * 7.5 for value in v] for k, v in layers.items() if k.endswith("norm")}
    file = makers.write_caffemodel(tmp_path / "file", {**layers, **more})
    check(entry, network, file)
    (tmp_path / "half").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=f"Expected the published file of {name}.*cut off"
    ) as error:
        zoo.load(name, weights=tmp_path / "half", accept_licence=True)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_tensorflow_1(tmp_path, monkeypatch):
    entry, network = small("simclr_v2_rn50_sk", {"blocks": (1, 1), "filters": (4, 8)}, monkeypatch)
    tensors = extract(network, LAYOUTS[entry.layout])
    tensors |= {f"{key}/Momentum": value for key, value in tensors.items()}
    tensors |= {"global_step": np.array(250228), "head_contrastive/nl_0/dense/kernel": ZERO}
    prefix = tmp_path / "model.ckpt-250228"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    check(entry, network, tmp_path / "model.ckpt-250228.index")


def test_a_checkpoint_of_local_aggregation(tmp_path, monkeypatch):
    """As tfutils saves it: the network without the scope of the first card, and the memory bank beside it."""
    small_network = {"blocks": (1, 2), "filters": (4, 6)}
    entry, network = small("local_aggregation_rn18", small_network, monkeypatch)
    head = build_head(entry.head, 6, widths=(5,))
    tensors = extract(network, LAYOUTS[entry.layout])
    tensors |= extract(head, LAYOUTS[f"{entry.head}_head"])
    tensors |= {f"{key}/Momentum": value for key, value in tensors.items() if "moving" not in key}
    tensors |= {"instance/memory_bank": np.zeros((9, 5), np.float32), "global_step": np.array(7)}
    tensors |= {"instance/cluster_labels": np.zeros((10, 9), np.int64)}
    path = tmp_path / "checkpoint-1901710.index"
    tf.raw_ops.SaveV2(
        prefix=str(path.with_suffix("")),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    check(entry, network, path)
    images = np.random.default_rng(1).random((2, 112, 112, 3), dtype=np.float32)
    expected = EncoderWithHead(network, head)(images)["projection"]
    loaded = zoo.load(entry.name, path, include="head", accept_licence=True)
    np.testing.assert_allclose(loaded(images)["projection"], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be fetched by name.*Unpack <http.*tar -xf"):
        zoo.load(entry.name, accept_licence=True)


def test_a_saved_model(tmp_path, monkeypatch):
    entry, network = small("simclr_v2_rn50_tf2", {"blocks": (1, 1), "filters": (4, 8)}, monkeypatch)
    (tmp_path / "saved_model/variables").mkdir(parents=True)
    (tmp_path / "saved_model/saved_model.pb").write_bytes(b"graph")
    tensors = {
        f"resnet_model/{key}/.ATTRIBUTES/VARIABLE_VALUE": value
        for key, value in extract(network, LAYOUTS[entry.layout]).items()
    }
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "saved_model/variables/variables"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    check(entry, network, tmp_path / "saved_model")
    file = tmp_path / "saved_model/variables/variables.index"
    with pytest.raises(ValueError, match="Expected the folder of a SavedModel .*, a file"):
        zoo.load(entry.name, file)
    (tmp_path / "none").mkdir()
    (tmp_path / "none/other.txt").write_text("x")
    with pytest.raises(
        ValueError, match="Expected a whole SavedModel at .*none. Received: "
    ) as error:
        zoo.load(entry.name, tmp_path / "none")
    assert "\n" not in str(error.value)
    data = tmp_path / "saved_model/variables/variables.data-00000-of-00001"
    largest = max(value.nbytes for value in tensors.values())
    data.write_bytes(data.read_bytes()[:largest])
    with pytest.raises(ValueError, match=f"take together. Received: data of {largest} bytes"):
        zoo.load(entry.name, tmp_path / "saved_model")


def test_a_pickle_of_byol(tmp_path, monkeypatch):
    entry, network = small("byol_rn50", RESNET, monkeypatch)
    parameters, state = {}, {}
    for key, value in extract(network, LAYOUTS[entry.layout]).items():
        layer, _, name = ("res_net50/~/" + key).rpartition("/")
        part = state if name == "average" else parameters
        part.setdefault(layer, {})[name] = value
        if name == "average":
            part[layer] |= {"hidden": value, "counter": np.array(3)}
    parameters["projector/linear"] = {"w": ZERO}
    tree = {
        "experiment_state": {
            "online_params": parameters,
            "target_params": parameters,
            "online_state": state,
            "target_state": state,
        },
        "step": 5,
    }
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(pickle.dumps(tree))
    check(entry, network, path)


def test_the_files_of_a_checkpoint_are_fetched_together(tmp_path, monkeypatch):
    from tests.zoo.file_server import Page, serving

    monkeypatch.setenv("no_proxy", "*")
    entry, network = small("simclr_v2_rn50", {"blocks": (1,), "filters": (4,)}, monkeypatch)
    tensors = extract(network, LAYOUTS[entry.layout])
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "ckpt"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    with serving() as server:
        for file in entry.files:
            tail = file.name.removeprefix("model.ckpt-250228")
            server.pages[f"/{file.name}"] = Page((tmp_path / f"ckpt{tail}").read_bytes())
        files = tuple(File(f.name, (server.url(f"/{f.name}"),)) for f in entry.files)
        entry = dataclasses.replace(entry, files=files)
        monkeypatch.setattr(published, "published", lambda: {entry.name: entry})
        check(entry, network, "published")
    assert len(server.log) == 2
    from keras_ssl.zoo import cache, verify

    assert sorted(cache.read_pins()) == sorted(f"{entry.name}/{f.name}" for f in files)
    assert all(check.ok is not False for check in verify.verify_published(entry))
