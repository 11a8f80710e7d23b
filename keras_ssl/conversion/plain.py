"""AlexNet and VGG-16 of DeepCluster, DeeperCluster, SeLa, RotNet and VISSL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ssl.backbones import VGG, AlexNet
from keras_ssl.backbones.plain import PlainBackbone
from keras_ssl.conversion.engine import (
    CONVOLUTION,
    DENSE,
    SAME,
    Layout,
    Port,
    Turn,
    batch_norm_ports,
    check_form,
)
from keras_ssl.conversion.regnet import ROOT, rooted

Tensors = dict[str, np.ndarray]

COUNTERS = r".*\.num_batches_tracked"
# What the frozen Sobel layers of the files must hold, as this library computes it.
SOBEL = {
    "sobel.0.weight": np.full((1, 3, 1, 1), 1.0 / 3.0, np.float32),
    "sobel.0.bias": np.zeros(1, np.float32),
    "sobel.1.weight": np.array(
        [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]]], np.float32
    ),
    "sobel.1.bias": np.zeros(2, np.float32),
}


def flattened(shape: tuple[int, int, int]) -> Turn:
    """Returns the turn of a dense layer that reads a flattened map of (height, width, channels).

    The files flatten channel first: (out, channels * height * width) there is (height * width * channels, out) here.
    """
    height, width, channels = shape

    def to_keras(x: np.ndarray) -> np.ndarray:
        split = x.reshape(-1, channels, height, width)
        return split.transpose(2, 3, 1, 0).reshape(height * width * channels, -1)

    def to_source(x: np.ndarray) -> np.ndarray:
        split = x.reshape(height, width, channels, -1)
        return split.transpose(3, 2, 0, 1).reshape(-1, channels * height * width)

    return Turn(to_keras, to_source)


def _convolutions(network: PlainBackbone, key: Callable[[int], tuple[str, str]]) -> list[Port]:
    """Returns the ports of the convolutions; `key(index)` names one and its batch-norm."""
    ports = []
    for index, unit in enumerate(network.units):
        conv, norm = key(index)
        ports.append(Port(f"{conv}.weight", unit.layer.kernel, CONVOLUTION))
        ports.append(Port(f"{conv}.bias", unit.layer.bias, SAME))
        ports += batch_norm_ports(unit.norm, norm) if unit.norm is not None else []
    return ports


def _dense(network: PlainBackbone, names: list[tuple[str, str]]) -> list[Port]:
    """Returns the ports of the dense layers that the network has; (name, name of its batch-norm) each."""
    ports = []
    for index, (unit, (name, norm)) in enumerate(zip(network.dense_units, names, strict=False)):
        turn = flattened(network.last_map) if index == 0 else DENSE
        ports.append(Port(f"{name}.weight", unit.layer.kernel, turn))
        if unit.layer.bias is not None:
            ports.append(Port(f"{name}.bias", unit.layer.bias, SAME))
        ports += batch_norm_ports(unit.norm, norm) if unit.norm is not None else []
    return ports


def _sequential(
    root: str, classifier: str, dense: tuple[int, int]
) -> Callable[[PlainBackbone], list[Port]]:
    """Returns the ports of a `features` row of convolution, batch-norm, ReLU and pool, numbered through."""

    def ports(network: PlainBackbone) -> list[Port]:
        places, place = [], 0
        for spec in network.specs:
            places.append(place)
            place += 2 + spec.batch_norm + (spec.pool is not None)
        found = _convolutions(
            network, lambda index: (f"{root}.{places[index]}", f"{root}.{places[index] + 1}")
        )
        return found + _dense(network, [(f"{classifier}.{number}", "") for number in dense])

    return ports


def _blocks(network: PlainBackbone) -> list[Port]:
    """Returns the ports of trunks that hold each convolution, pool and dense part as one feature block."""
    places = (0, 2, 4, 5, 6)
    found = _convolutions(
        network, lambda index: (f"{ROOT}{places[index]}.0", f"{ROOT}{places[index]}.1")
    )
    return found + _dense(network, [(f"{ROOT}8.1", f"{ROOT}8.2"), (f"{ROOT}8.4", f"{ROOT}8.5")])


Ports = Callable[[PlainBackbone], list[Port]]
FIRST = {
    **{"stride": 4, "first_border": 2, "response_norm": False},
    **{"lightness": False, "lab": False, "ceil_pool": False},
}


def _alexnet(layout: str, ports: Ports, **form: Any) -> Callable[[keras.Model], list[Port]]:
    """Returns the function that lists the ports of an AlexNet of `FIRST` and `form`, and refuses any other."""

    def checked(network: keras.Model) -> list[Port]:
        check_form(network, AlexNet, layout, {**FIRST, **form})
        return ports(network)

    return checked


def _vgg(layout: str, ports: Ports, **form: Any) -> Callable[[keras.Model], list[Port]]:
    """Returns the function that lists the ports of a VGG of a given form, and refuses any other."""

    def checked(network: keras.Model) -> list[Port]:
        check_form(network, VGG, layout, form)
        return ports(network)

    return checked


def _checked_sobel(tensors: Tensors) -> Tensors:
    """Returns the tensors if their Sobel layer, where there is one, is the fixed one."""
    for key, expected in SOBEL.items():
        value = tensors.get(key)
        if value is not None and not (
            np.shape(value) == expected.shape and np.allclose(value, expected, atol=1e-6)
        ):
            raise ValueError(
                f"Expected the fixed Sobel filter in {key!r}, {expected.ravel().tolist()}. "
                f"Received: shape={np.shape(value)}, {np.ravel(value)[:18].tolist()}"
            )
    return tensors


def _deepcluster(tensors: Tensors) -> Tensors:
    """Returns the tensors under the official names, `features.module.0.weight`; they may come without `module.`."""
    plain = {key.replace("module.", ""): value for key, value in tensors.items()}
    return _checked_sobel(
        {
            key.replace("features.", "features.module.", 1)
            if key.startswith("features.")
            else key: value
            for key, value in plain.items()
        }
    )


def _deepercluster(tensors: Tensors) -> Tensors:
    """Returns the tensors under the official names without `module.`: `body.features.0.weight`, `sobel.0.weight`."""
    plain = {key.removeprefix("module."): value for key, value in tensors.items()}
    return _checked_sobel(
        {
            f"body.{key}" if key.startswith(("features.", "classifier.")) else key: value
            for key, value in plain.items()
        }
    )


def _trunk_with_sobel(tensors: Tensors) -> Tensors:
    sobel = {key: value for key, value in tensors.items() if key.startswith("sobel.")}
    rest = {key: value for key, value in tensors.items() if key not in sobel}
    return {**_checked_sobel(sobel), **rooted(rest)}


def _sela(tensors: Tensors) -> Tensors:
    return {key.removeprefix("module."): value for key, value in tensors.items()}


# Every layout here fits a network with the dense layers of the file and one without them.

# facebookresearch/deepcluster `models/alexnet.py`. For `AlexNet(sobel=True)`.
DEEPCLUSTER_ALEXNET = Layout(
    "deepcluster_alexnet",
    _alexnet(
        "deepcluster_alexnet", _sequential("features.module", "classifier", (1, 4)), sobel=True
    ),
    left_out=(r"(classifier|top_layer|sobel)\..*", COUNTERS),
    prepare=_deepcluster,
)
# facebookresearch/deepcluster `models/vgg16.py`. For `VGG((2, 2, 3, 3, 3), sobel=True)`.
DEEPCLUSTER_VGG16 = Layout(
    "deepcluster_vgg16",
    _vgg(
        "deepcluster_vgg16",
        _sequential("features.module", "classifier", (0, 3)),
        sobel=True,
        border=0,
    ),
    left_out=(r"(classifier|top_layer|sobel)\..*", COUNTERS),
    prepare=_deepcluster,
)
# facebookresearch/DeeperCluster `src/model/`. For `VGG((2, 2, 3, 3, 3), border=1)`, with `sobel=True` for the
# clustering networks and without for the RotNets.
DEEPERCLUSTER_VGG16 = Layout(
    "deepercluster_vgg16",
    _vgg("deepercluster_vgg16", _sequential("body.features", "body.classifier", (0, 3)), border=1),
    left_out=(r"(body\.classifier|pred_layer|sobel)\..*", COUNTERS),
    prepare=_deepercluster,
)
# yukimasano/self-label `models/alexnet.py`. For `AlexNet()`.
SELA_ALEXNET = Layout(
    "sela_alexnet",
    _alexnet("sela_alexnet", _sequential("features", "classifier", (1, 4)), sobel=False),
    left_out=(r"(classifier|top_layer\d*)\..*", COUNTERS),
    prepare=_sela,
)
# gidariss/FeatureLearningRotNet `architectures/AlexNet.py`, and VISSL's copy of the file. For
# `AlexNet((64, 192, 384, 256, 256))`, with `dense_norm=True` if it has dense layers.
ROTNET_ALEXNET = Layout(
    "rotnet_alexnet",
    _alexnet("rotnet_alexnet", _blocks, sobel=False),
    left_out=(rf"{ROOT}[89]\..*", COUNTERS),
    prepare=rooted,
)
# facebookresearch/vissl `vissl/models/trunks/alexnet_jigsaw.py`, `alexnet_colorization.py`, `alexnet_deepcluster.py`;
# what is in the files: `extra_scripts/convert_caffe2_to_vissl_alexnet.py`. For the variants of `AlexNet`.
VISSL_ALEXNET_JIGSAW = Layout(
    "vissl_alexnet_jigsaw",
    _alexnet(
        "vissl_alexnet_jigsaw", _blocks, stride=2, first_border=0, response_norm=True, sobel=False
    ),
    (COUNTERS,),
    prepare=rooted,
)
VISSL_ALEXNET_COLORIZATION = Layout(
    "vissl_alexnet_colorization",
    _alexnet("vissl_alexnet_colorization", _blocks, first_border=0, lightness=True),
    (COUNTERS,),
    prepare=rooted,
)
VISSL_ALEXNET_DEEPCLUSTER = Layout(
    "vissl_alexnet_deepcluster",
    _alexnet("vissl_alexnet_deepcluster", _blocks, sobel=True),
    (COUNTERS, r"sobel\..*"),
    prepare=_trunk_with_sobel,
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        DEEPCLUSTER_ALEXNET,
        DEEPCLUSTER_VGG16,
        DEEPERCLUSTER_VGG16,
        SELA_ALEXNET,
        ROTNET_ALEXNET,
        VISSL_ALEXNET_JIGSAW,
        VISSL_ALEXNET_COLORIZATION,
        VISSL_ALEXNET_DEEPCLUSTER,
    )
}
