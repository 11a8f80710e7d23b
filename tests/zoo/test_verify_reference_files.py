"""Reference networks read the containers that the authors wrote, and account for every name in them."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.conversion.references import REFERENCES, numpy_resnets
from keras_ssl.conversion.references.running import load_strictly
from keras_ssl.zoo import converting, verify
from tests.checkpoints import makers
from tests.conversion import fixtures, resnet_rows
from tests.zoo.reference_files import (
    FIRST,
    compared,
    entry_of,
    needs_torch,
    reference_check,
    worst,
)


@pytest.mark.parametrize("layout", ["simclr_tf1", "local_aggregation_tf1"])
def test_a_checkpoint_of_tensorflow_1(layout, tmp_path):
    row = FIRST[layout]
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it runs the reference")
    selective = functools.partial(resnet_rows.simclr_tf1, (1, 1), (4, 6), selective=True)
    tensors, network, _ = (selective if layout == "simclr_tf1" else row.make)()
    prefix = tmp_path / "model.ckpt"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    check, _ = compared(entry_of(row, network, "tensorflow"), tmp_path / "model.ckpt.index")
    assert check.ok is True and "(3 random images, 32x32 and 39x31)" in check.expected


@needs_torch
@pytest.mark.parametrize(
    ("layout", "legacy"),
    [
        ("splitbrain_caffe", True),
        ("colorization_caffe", False),
        pytest.param("splitbrain_caffe", False, marks=pytest.mark.slow),
        pytest.param("colorization_caffe", True, marks=pytest.mark.slow),
    ],
)
def test_a_caffemodel(layout, legacy, tmp_path):
    """With vectors of one axis or of four; statistics that were not divided by what stands with them are found."""
    tensors, network, _ = FIRST[layout].make()
    layers = {}
    for key, value in tensors.items():
        layers.setdefault(key.rpartition(".")[0], []).append(value)
    path = makers.write_caffemodel(tmp_path / "file", layers, legacy=legacy)
    entry = entry_of(FIRST[layout], network, "caffemodel")
    check, network = compared(entry, path)
    assert check.ok is True and worst(check) < 1e-5
    for norm in (unit.norm for unit in network.units if unit.norm is not None):
        norm.moving_mean.assign(norm.moving_mean * 999.98)
        norm.moving_variance.assign(norm.moving_variance * 999.98)
    check, _ = compared(entry, path, network)
    assert check.ok is (layout == "splitbrain_caffe")  # which has none


@pytest.mark.parametrize("selective", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_saved_model_of_tensorflow_2(selective, tmp_path):
    """Written by Keras 2, so that names are places in a list and only the object graph tells whose they are."""
    pytest.importorskip("tf_keras", reason="tf_keras is not installed; it writes the file")
    from tests.conversion import keras2_simclr

    (tmp_path / "saved/variables").mkdir(parents=True)
    (tmp_path / "saved/saved_model.pb").write_bytes(b"graph")
    model = keras2_simclr.filled_model((2, 1), (4, 6), selective)
    keras2_simclr.write_checkpoint(model, tmp_path / "saved/variables/variables")
    row = dataclasses.replace(FIRST["simclr_tf1"], layout="simclr_tf2")
    network = resnet_rows.simclr_network((2, 1), (4, 6), selective=selective)
    check = reference_check(
        verify.verify_published(entry_of(row, network, "saved model"), tmp_path / "saved")
    )
    assert check.ok is True and worst(check) < 1e-5
    images = fixtures.pictures(40)
    tensors = converting.read_tensors(entry_of(row, network, "saved model"), tmp_path / "saved")[1]
    run = REFERENCES["simclr_tf2"].build("simclr_tf2", tensors, network.settings, 0.0, 1.0)
    np.testing.assert_allclose(
        run(images)["features"], keras2_simclr.features(model, images), rtol=1e-4, atol=1e-4
    )


def test_layers_are_created_in_the_order_of_numbers():
    """By hand: layer 10 after layer 9, a shortcut before its block, streams before what mixes them."""
    paths = (
        "initial_conv_relu_max_pool/0/conv2d",
        "block_groups/0/layers/0/projection_layers/1/conv2d",
        "block_groups/0/layers/0/conv_relu_dropblock_layers/0/conv2d",
        "block_groups/0/layers/0/conv_relu_dropblock_layers/3/conv2d_fixed_padding/conv2d",
        "block_groups/0/layers/0/conv_relu_dropblock_layers/3/conv2d_0",
        "block_groups/0/layers/0/conv_relu_dropblock_layers/3/conv2d_1",
        "block_groups/0/layers/9/conv_relu_dropblock_layers/0/conv2d",
        "block_groups/0/layers/10/conv_relu_dropblock_layers/0/conv2d",
        "block_groups/1/layers/0/projection_layers/0/conv2d",
    )
    given = {f"{path}/kernel": index for index, path in reversed(list(enumerate(paths)))}
    given["_projection_head/conv2d/kernel"] = -1
    found = numpy_resnets.created(given)
    assert found.pop("_projection_head/conv2d/kernel") == -1
    assert found.pop("conv2d/kernel") == 0
    assert found == {f"conv2d_{index}/kernel": index for index in range(1, len(paths))}


@pytest.mark.parametrize("layout", ["byol_haiku", "xcit"])
def test_names_are_accounted_for(layout):
    """Independently of the ports: nothing missing, nothing left over but what the layout leaves out."""
    row = FIRST[layout]
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it makes the reference")
    tensors, network, _ = row.make()
    build = REFERENCES[layout].build
    arguments = network.settings, network.mean, network.std
    build(layout, tensors, *arguments)(fixtures.pictures(32))
    more = {**tensors, "another": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="another"):
        build(layout, more, *arguments)(fixtures.pictures(32))
    key = next(key for key in tensors if key.endswith(("conv_1/w", "blocks.1.mlp.fc1.bias")))
    less = {k: value for k, value in tensors.items() if k != key}
    with pytest.raises(ValueError, match=key.rpartition("~/")[2]):
        build(layout, less, *arguments)(fixtures.pictures(32))
    if layout == "xcit":
        with pytest.raises(ValueError, match="one without 'cls_token'"):
            build(layout, {}, *arguments)


@needs_torch
@pytest.mark.parametrize(
    ("layout", "more", "less", "missing"),
    [
        ("splitbrain_caffe", "conv3.7", "conv4.1", "conv4.bias"),
        ("splitbrain_caffe", "conv3.7", "data_lab.1", "data_lab.bias"),
        ("colorization_caffe", "conv6_1.7", "conv1_2norm.1", "conv1_2norm.running_var"),
        ("colorization_torch", "model9.0.bias", "model3.0.bias", "model3.0.bias"),
        ("swin", "absolute_pos_embed", *["layers.1.downsample.norm.bias"] * 2),
        (
            "local_aggregation_tf1",
            "resnet_model/batch_normalization_9/gamma",
            "resnet_model/batch_normalization_1/beta",
            "resnet_model.batch_normalization_1.beta",
        ),
    ],
)
def test_names_of_layers_are_accounted_for(layout, more, less, missing):
    """Here every other layer is no part of the encoder, but in a layer of it no name may be another."""
    tensors, network, _ = FIRST[layout].make()
    settings = {**network.settings, "image_size": network.image_size}
    build = functools.partial(
        REFERENCES[layout].build, layout, settings=settings, mean=network.mean, std=network.std
    )
    build(tensors)(fixtures.pictures(network.image_size))
    with pytest.raises(ValueError, match=f'Unexpected.*"{more.replace("/", ".")}"'):
        build({**tensors, more: np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=f'Missing.*"{missing}"'):
        build({key: value for key, value in tensors.items() if key != less})


@needs_torch
@pytest.mark.filterwarnings("error")
def test_modules_take_arrays_as_they_are():
    """No second copy of float32, read-only or not; halves become float32."""
    import torch

    with torch.device("meta"):
        module = torch.nn.Linear(3, 2)
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    weight.setflags(write=False)
    given = {"weight": weight, "bias": np.array([0.5, -2.0], np.float16), "head": np.zeros(3)}
    load_strictly(module, given, ("head",))
    assert module.weight.data_ptr() == weight.ctypes.data
    assert module.bias.dtype == torch.float32 and module.bias.tolist() == [0.5, -2.0]
    with pytest.raises(ValueError, match="size mismatch for weight"):
        load_strictly(torch.nn.Linear(4, 2), given, ("head",))
