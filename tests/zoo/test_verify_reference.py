"""`zoo verify` compares the converted file with a reference network that reads the same file."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import checkpoints, cli
from keras_ssl.conversion import HEADS, LAYOUTS, extract
from keras_ssl.conversion.engine import Turn
from keras_ssl.conversion.references import REFERENCES, numpy_resnets
from keras_ssl.conversion.references.running import load_strictly
from keras_ssl.zoo import comparison, converting, published, verify
from keras_ssl.zoo.published import File, Published
from keras_ssl.zoo.terms import PREPROCESSING
from tests.conversion import fixtures, parity, resnet_rows
from tests.zoo.test_families import RESNET, TABLE, small
from tests.zoo.test_families import TORCH as FILES_OF_PYTORCH

# What builds a network of a class, whose every setting is given.
NAMES = {
    "ResNet": "resnet50",
    "ViT": "vit_small",
    "RegNet": "regnety_16gf",
    "AlexNet": "alexnet",
    "VGG": "vgg16",
    "XCiT": "xcit_small_12",
    "ConvNeXt": "convnext_tiny",
    "Swin": "swin_tiny",
    "DilatedVGG": "vgg_dilated",
    "PreActResNet": "resnet18_preact",
}
TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="torch is not installed; it runs the references")
ROWS = [
    row
    for family in parity.FAMILIES
    for row in parity.rows(family)
    if row.layout in REFERENCES and row.layout != "simclr_tf2"
]
FIRST = {row.layout: row for row in reversed(ROWS) if not row.slow}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))


def entry_of(row, network, container="torch"):
    """Returns an entry whose network is that of a parity row."""
    mean, std = (tuple(value) if value else None for value in (network.mean, network.std))
    images = next(
        (
            name
            for name, images in PREPROCESSING.items()
            if (images.mean, images.std) == (mean, std)
        ),
        "lightness",
    )
    return Published(
        "tiny",
        "method",
        "tests",
        NAMES[type(network).__name__],
        row.layout,
        "mit",
        (File("file"),),
        settings=network.settings,
        image_size=network.image_size,
        preprocessing=images,
        container=container,
        access="manual",
    )


def written(row, tmp_path):
    """Returns the entry of a row and the path of its file."""
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it makes the reference")
    tensors, network, _ = row.make()
    checkpoints.write_torch(tmp_path / "file", tensors)
    return entry_of(row, network), tmp_path / "file"


def reference_check(checks):
    (check,) = [check for check in checks if check.what == "reference network"]
    return check


def failed(checks):
    return [check.what for check in checks if check.ok is False]


def worst(check):
    return max(float(part.split(" ")[1]) for part in check.found.split(", "))


def test_every_layout_of_an_encoder_has_a_reference_and_a_row():
    assert set(REFERENCES) == set(LAYOUTS) - {f"{kind}_head" for kind in HEADS}
    assert set(REFERENCES) == {row.layout for row in ROWS} | {"simclr_tf2"}


def compared(entry, path, network=None):
    """Returns the check alone, and the network, which is converted first if there is none."""
    source = converting.Source((path,), ("",), "")
    if network is None:
        network, _, _ = converting.convert_source(entry, source)
    return comparison.compare_with_reference(entry, source, network, print), network


QUICK = (
    *("torchvision_resnet", "vissl_regnet", "deepercluster_vgg16", "vissl_alexnet_colorization"),
    *("timm_vit", "dinov3", "simclr_tf1", "byol_haiku", "vissl_resnet_colorization"),
    *("splitbrain_caffe", "colorization_alexnet_caffe", "colorization_caffe"),
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
    with keras.StatelessScope(initialize_variables=False):
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


# The container of the authors -------------------------------------------------------------------------------


def test_a_checkpoint_of_tensorflow_1(tmp_path):
    tensors, network, _ = resnet_rows.simclr_tf1((1, 1), (4, 6), selective=True)
    prefix = tmp_path / "model.ckpt"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    row = FIRST["simclr_tf1"]
    check, _ = compared(entry_of(row, network, "tensorflow"), tmp_path / "model.ckpt.index")
    assert check.ok is True and "(3 random images, 32x32 and 39x31)" in check.expected


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


# Sabotage: what was converted is what was recorded, and it is wrong ------------------------------------------


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


@pytest.mark.parametrize("layout", ["simclr_tf1", "timm_vit"])
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


# What is said instead ----------------------------------------------------------------------------------------


def test_without_pytorch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    entry, network = small("dino_rn50", RESNET, monkeypatch)
    checkpoints.write_torch(tmp_path / "file", extract(network, LAYOUTS[entry.layout]))
    checks = verify.verify_published(entry, tmp_path / "file", accept_licence=True)
    check = reference_check(checks)
    assert check.ok is None and failed(checks) == []
    assert "pip install 'keras_ssl[verify]'" in check.expected
    assert check.found == "no torch installed"
    entry, path = written(FIRST["byol_haiku"], tmp_path)  # NumPy is always there
    assert compared(entry, path)[0].ok is True


def test_a_layout_without_a_reference_says_so(tmp_path, monkeypatch):
    entry, path = written(FIRST["simclr_tf1"], tmp_path)
    monkeypatch.delitem(REFERENCES, "simclr_tf1")
    check, _ = compared(entry, path)
    assert check.ok is None and check.expected == "there is none for the layout simclr_tf1"
    check = comparison.compare_with_reference(
        dataclasses.replace(entry, layout="byol_haiku"), None, None, print
    )
    assert (check.ok, check.found) == (None, "not kept in the cache")


def test_large_networks_get_one_image_and_a_warning(tmp_path, monkeypatch):
    entry, path = written(FIRST["simclr_tf1"], tmp_path)
    monkeypatch.setattr(comparison, "LARGE", 1)
    source, said = converting.Source((path,), ("",), ""), []
    network, _, _ = converting.convert_source(entry, source)
    check = comparison.compare_with_reference(entry, source, network, said.append)
    assert check.ok is True and "(1 random image, 32x32)" in check.expected
    tensors = converting.read_tensors(entry, path)[1]
    size = 4 * sum(value.size for value in tensors.values())
    assert published.format_bytes(size) in said[0] and "--no-reference" in said[0]


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


# command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_row(tmp_path, monkeypatch, capsys):
    entry, path = written(FIRST["byol_haiku"], tmp_path)
    monkeypatch.setattr(published, "published", lambda: {"tiny": entry})
    command = ["zoo", "verify", "tiny", "--weights", str(path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "ok      reference network: expected largest difference below 0.0001" in printed
    assert cli.main([*command, "--no-reference"]) == 0
    printed = capsys.readouterr().out
    assert "-       reference network: expected was not asked for" in printed
    monkeypatch.setattr(numpy_resnets, "EPSILON", 1e-1)
    assert cli.main(command) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS reference network: " in printed
    assert printed.splitlines()[-1].startswith("tiny: 1 of ")
