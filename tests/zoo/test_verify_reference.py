"""`zoo verify` compares the converted file with a reference network that reads the same file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import checkpoints
from keras_ssl.conversion import HEADS, LAYOUTS, extract
from keras_ssl.conversion.engine import Turn
from keras_ssl.conversion.references import REFERENCES
from keras_ssl.zoo import converting, verify
from tests.without_values import without_values
from tests.zoo.families import TABLE, small
from tests.zoo.families import TORCH as FILES_OF_PYTORCH
from tests.zoo.reference_files import (
    FIRST,
    ROWS,
    compared,
    failed,
    needs_torch,
    reference_check,
    worst,
    written,
)


def test_every_layout_of_an_encoder_has_a_reference_and_a_row():
    assert set(REFERENCES) == set(LAYOUTS) - {f"{kind}_head" for kind in HEADS}
    assert set(REFERENCES) == {row.layout for row in ROWS} | {"simclr_tf2"}


QUICK = (
    *("torchvision_resnet", "vissl_regnet", "deepercluster_vgg16", "vissl_alexnet_colorization"),
    *("timm_vit", "dinov3", "simclr_tf1", "byol_haiku", "vissl_resnet_colorization"),
    *("splitbrain_caffe", "colorization_caffe"),
    *("colorization_torch", "swin", "local_aggregation_tf1"),
)


def layouts(quick):
    """Returns the layouts as parameters, all but some of them for the long run."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in FIRST]


@pytest.mark.parametrize("layout", layouts(QUICK))
def test_one_file_of_each_layout_and_one_wrong_kernel(layout, tmp_path):
    """The last kernel but one, a tenth too large in the converted network, is found."""
    entry, path = written(FIRST[layout], tmp_path)
    check, network = compared(entry, path)
    assert check.ok is True, check
    assert worst(check) < 1e-5  # measured: at most 2e-6
    kind = "tokens" if entry.backbone.startswith(("vit", "xcit")) else "map"
    assert f", {kind} " in check.found
    assert ("3 random images" in check.expected) == (not entry.settings.get("dense"))
    kernel = [variable for variable in network.variables if variable.path.endswith("kernel")][-2]
    kernel.assign(1.1 * kernel)
    check, _ = compared(entry, path, network)
    assert check.ok is False and worst(check) > 1e-4


@pytest.mark.parametrize("layout", layouts(("dinov2",)))
def test_the_whole_verification_of_each_layout(layout, tmp_path):
    entry, path = written(FIRST[layout], tmp_path)
    checks = verify.verify_published(entry, path)
    assert failed(checks) == [] and reference_check(checks).ok is True


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [row.parameter for row in ROWS if row is not FIRST[row.layout] and row.sizes != (96,)],
)
def test_all_other_rows(row, tmp_path):
    check, _ = compared(*written(row, tmp_path))
    assert check.ok is True and worst(check) < 1e-5, check


@needs_torch
@pytest.mark.parametrize(
    ("name", "settings", "tree"),
    [
        pytest.param(
            *row, id=row[0], marks=() if row[0] == "deepcluster_alexnet" else pytest.mark.slow
        )
        for row in FILES_OF_PYTORCH
    ],
)
def test_entries_as_they_stand_in_the_tables(name, settings, tree, tmp_path, monkeypatch):
    """Places, prefixes and what lies beside the encoder are the publishers'; without dense layers if they have none."""
    entry, network = small(name, settings, monkeypatch)
    path = tmp_path / "file"
    checkpoints.write_torch(path, {}, tree(extract(network, LAYOUTS[entry.layout])))
    check, _ = compared(entry, path)
    assert check.ok is True and worst(check) < 1e-4, check


def distinct():
    """Returns one published entry for each network that PyTorch is the reference of, and its key."""
    found = {}
    for entry in TABLE.values():
        if entry.layout in REFERENCES and REFERENCES[entry.layout].kind == "PyTorch":
            found.setdefault((entry.backbone, entry.layout, repr(entry.settings)), entry)
    return found.values()


FULL = ("swav_rn50w5", "dinov2_vitg14_reg", "dino_xcit_m24_p8", "deepcluster_vgg16")


@needs_torch
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry.name, marks=() if entry.name in FULL else pytest.mark.slow)
        for entry in distinct()
    ],
)
def test_forms_of_the_published_networks(entry):
    """At full size, without numbers: the form read from shapes alone has every shape of the file again."""
    import torch

    layout, reference = LAYOUTS[entry.layout], REFERENCES[entry.layout]
    with without_values():
        network = converting.build_network(entry)
    tensors = {}
    for port in layout.ports(network):
        empty = np.broadcast_to(np.float32(0), tuple(port.variable.shape))
        tensors[port.key] = port.turn.to_source(empty)
    tensors = layout.restore(tensors) if layout.restore else tensors
    tensors = reference.names(tensors) if reference.names else tensors
    with torch.device("meta"):
        module = reference.form(tensors, {**network.settings, "image_size": entry.image_size})
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    wanted = {key: shape for key, shape in wanted.items() if not key.endswith("batches_tracked")}
    given = {key: value.shape for key, value in tensors.items() if key in wanted}
    assert given == wanted
    assert all(key.startswith("sobel.") for key in tensors.keys() - wanted.keys())


def flipped(layout, kernel):
    """Returns a layout that turns one kernel upside down."""

    def ports(network):
        found = layout.ports(network)
        for index, port in enumerate(found):
            if port.key == kernel:
                turn = port.turn
                wrong = Turn(lambda x, turn=turn: turn.to_keras(x)[::-1], turn.to_source)
                found[index] = dataclasses.replace(port, turn=wrong)
        return found

    return dataclasses.replace(layout, ports=ports)


@needs_torch
def test_a_kernel_turned_upside_down_is_found_here_alone(tmp_path, monkeypatch):
    name, kernel = "torchvision_resnet", "layer1.0.conv2.weight"
    monkeypatch.setitem(LAYOUTS, name, flipped(LAYOUTS[name], kernel))
    row = next(row for row in ROWS if row.layout == name and row.name == "bottleneck")
    checks = verify.verify_published(*written(row, tmp_path))
    assert failed(checks) == ["reference network"]
    same = {check.what: check.ok for check in checks}
    assert same["weights, converted again"] and same["stored weights"]
    assert same["features, as converted"] and same["published file, SHA-256"]
    assert worst(reference_check(checks)) > 1e-2


@pytest.mark.parametrize(
    "layout",
    [
        *("simclr_tf1", "timm_vit"),
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("swin", "local_aggregation_tf1")),
    ],
)
def test_another_epsilon_is_found(layout, tmp_path, monkeypatch):
    """1e-3, Keras's own, in every norm of the converted network."""
    entry, path = written(FIRST[layout], tmp_path)
    build, changed = converting.build_network, []

    def wrong(*args, **kwargs):
        network = build(*args, **kwargs)
        for layer in network._flatten_layers():
            if hasattr(layer, "epsilon"):
                layer.epsilon = 1e-3
                changed.append(layer.name)
        return network

    monkeypatch.setattr(converting, "build_network", wrong)
    monkeypatch.setattr(verify, "build_network", wrong)
    checks = verify.verify_published(entry, path)
    assert changed and failed(checks) == ["reference network"]


def with_settings(**settings):
    """Returns what makes a network of other settings with the same weights."""

    def make(network):
        other = type(network).from_config({**network.get_config(), **settings})
        for target, source in zip(other.variables, network.variables, strict=True):
            target.assign(source)
        return other

    return make


def without_shift(network):
    for stage in network.stages:
        for block in stage:
            block.shift = 0
    return network


def with_a_and_b_interchanged(network):
    lab = network.normalize
    network.normalize = lambda images: tf.gather(lab(images), (0, 2, 1), axis=-1)
    return network


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("splitbrain_caffe", with_settings(ceil_pool=False)),
        ("splitbrain_caffe", with_a_and_b_interchanged),
        ("colorization_caffe", with_settings(dilations=[1] * 7)),
        ("swin", without_shift),
    ],
    ids=["pools that round down", "a and b", "no dilation", "no shift"],
)
def test_what_no_kernel_shows_is_found(layout, change, tmp_path):
    entry, path = written(FIRST[layout], tmp_path)
    check, network = compared(entry, path)
    assert check.ok is True
    check, _ = compared(entry, path, change(network))
    assert check.ok is False and worst(check) > 1e-3
