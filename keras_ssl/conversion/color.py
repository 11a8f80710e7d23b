"""Networks of Zhang, Isola and Efros: AlexNets of split-brain autoencoders and colorization, and what colorizes.

Caffe names a tensor by its layer and its place there: weight and bias of a convolution, or mean, variance and the
factor of both of a batch-norm. As in Caffe, which fills a network by the names of its layers, all other layers of a
file are no part of the encoder.
"""

from __future__ import annotations

import functools
import re

import keras
import numpy as np

from keras_ssl.backbones import AlexNet, DilatedVGG
from keras_ssl.backbones.units import PlainUnit
from keras_ssl.conversion.engine import (
    CONVOLUTION,
    SAME,
    Layout,
    Port,
    Turn,
    batch_norm_ports,
    check_form,
)

Tensors = dict[str, np.ndarray]

ALEXNET = {
    **{"stride": 4, "first_border": 0, "groups": [1, 2, 1, 2, 2], "first_norm": 6},
    **{"response_norm": False, "ceil_pool": True, "dense": []},
}
STAGES = {"halved": 3, "dilations": [1, 1, 1, 1, 2, 2, 1]}
# PyTorch's network takes (L - 50) / 100, this one L - 50 as Caffe's.
HUNDREDTH = Turn(
    lambda x: CONVOLUTION.to_keras(x) / 100.0, lambda x: CONVOLUTION.to_source(x) * 100.0
)


def _convolution(unit: PlainUnit, key: str, turn: Turn = CONVOLUTION) -> list[Port]:
    """Returns the ports of a convolution in Caffe."""
    return [
        Port(f"{key}.0", unit.layer.kernel, turn),
        Port(f"{key}.1", unit.layer.bias, SAME),
    ]


def _flat(tensors: Tensors) -> Tensors:
    """Returns Caffe's tensors with vectors of one axis; until 2014 every tensor had four."""
    return {
        key: value.reshape(-1)
        if np.ndim(value) == 4 and np.shape(value)[:3] == (1, 1, 1) and not key.endswith(".0")
        else value
        for key, value in tensors.items()
    }


def _alexnet(name: str, first: str, center: tuple[float, ...]) -> Layout:
    """Returns the layout of an AlexNet in Caffe.

    Args:
        name: str. Of the layout.
        first: str. Layer that holds a factor and an offset for each channel, which make 0 the middle of L.
        center: floats. What the network here subtracts from these channels.
    """
    form = {**ALEXNET, "lab": len(center) == 3, "lightness": len(center) == 1}

    def ports(network: keras.Model) -> list[Port]:
        check_form(network, AlexNet, name, form)
        return [
            port
            for number, unit in enumerate(network.units, start=1)
            for port in _convolution(unit, f"conv{number}")
        ]

    def restore(tensors: Tensors) -> Tensors:
        factors = np.ones((len(center), 1, 1, 1), np.float32)
        return {f"{first}.0": factors, f"{first}.1": -np.float32(center), **tensors}

    return Layout(
        name,
        ports,
        (r"(?!conv[1-5]\.).*",),
        prepare=functools.partial(_centered, name=name, first=first, center=np.array(center)),
        restore=restore,
    )


def _centered(tensors: Tensors, name: str, first: str, center: np.ndarray) -> Tensors:
    """Returns the tensors without the layer `first`, which the network here does itself.

    What it does beside subtracting `center` goes into the first convolution, which has no border, so that nothing is
    lost; factors of 1 and the offsets that are expected change no bit.
    """
    tensors, count = _flat(tensors), len(center)
    keys = f"{first}.0", f"{first}.1", "conv1.0", "conv1.1"
    if missing := [key for key in keys if key not in tensors]:
        raise ValueError(
            f"Expected a {name} checkpoint with the layers {first!r} and 'conv1'. "
            f"Received: one without {', '.join(missing)}"
        )
    factor, offset = (np.asarray(tensors.pop(key), np.float64).reshape(-1) for key in keys[:2])
    kernel, bias = (np.asarray(tensors[key], np.float64) for key in keys[2:])
    if not factor.shape == offset.shape == (count,) or kernel.shape[1:2] != (count,):
        raise ValueError(
            f"Expected {first!r} with one factor and one offset for each channel that 'conv1' sees, {count}. "
            f"Received: shapes {factor.shape}, {offset.shape} and {kernel.shape}"
        )
    tensors["conv1.0"] = kernel * factor.reshape(-1, 1, 1)
    tensors["conv1.1"] = bias + kernel.sum((2, 3)) @ (factor * center + offset)
    return tensors


def _stages(network: keras.Model) -> list[list[PlainUnit]]:
    """Returns the convolutions of each stage of a `DilatedVGG`."""
    units = iter(network.units)
    return [[next(units) for _ in range(count)] for count in network.settings["blocks"]]


def _colorization_ports(network: keras.Model) -> list[Port]:
    check_form(network, DilatedVGG, "colorization_caffe", {**STAGES, "norm_affine": False})
    ports = []
    for number, stage in enumerate(_stages(network), start=1):
        for place, unit in enumerate(stage, start=1):
            key = f"conv{number}_{place}"
            ports += _convolution(unit, f"bw_{key}" if (number, place) == (1, 1) else key)
        ports.append(Port(f"{key}norm.0", unit.norm.moving_mean))
        ports.append(Port(f"{key}norm.1", unit.norm.moving_variance))
    return ports


def _unscaled(tensors: Tensors) -> Tensors:
    """Returns Caffe's tensors with the statistics of each batch-norm divided by the factor that it keeps with them.

    Caffe sums statistics up with a decay, and the decayed number of batches beside them; with 0 of them its mean and
    variance are 0.
    """
    tensors = _flat(tensors)
    for name in {match[1] for key in tensors if (match := re.match(r"(conv[1-7]_\d+norm)\.", key))}:
        sums = [tensors.get(f"{name}.{place}") for place in range(3)]
        if any(value is None for value in sums) or np.size(sums[2]) != 1:
            found = [np.shape(value) for value in sums if value is not None]
            raise ValueError(
                f"Expected mean, variance and one factor in the layer {name!r}. Received: shapes {found}"
            )
        count = np.asarray(tensors.pop(f"{name}.2"), np.float64).item()
        for place in (0, 1):
            total = np.asarray(sums[place], np.float64).reshape(-1)
            tensors[f"{name}.{place}"] = total / count if count else 0.0 * total
    return tensors


def _scaled(tensors: Tensors) -> Tensors:
    """Returns the tensors with the factor 1 after the statistics of each batch-norm."""
    whole: Tensors = {}
    for key, value in tensors.items():
        whole[key] = value
        if key.endswith("norm.1"):
            whole[f"{key[:-1]}2"] = np.ones(1, np.float32)
    return whole


def _torch_ports(network: keras.Model) -> list[Port]:
    check_form(network, DilatedVGG, "colorization_torch", {**STAGES, "norm_affine": True})
    ports = []
    for number, stage in enumerate(_stages(network), start=1):
        for place, unit in enumerate(stage):
            key = f"model{number}.{2 * place}"  # every second layer is a ReLU
            turn = HUNDREDTH if (number, place) == (1, 0) else CONVOLUTION
            ports.append(Port(f"{key}.weight", unit.layer.kernel, turn))
            ports.append(Port(f"{key}.bias", unit.layer.bias))
        ports += batch_norm_ports(unit.norm, f"model{number}.{2 * len(stage)}")
    return ports


# richzhang/splitbrainauto `models/deploy_lab.prototxt`. For `AlexNet` of the form `ALEXNET` with `lab=True`.
SPLITBRAIN_CAFFE = _alexnet("splitbrain_caffe", "data_lab", (50.0, 0.0, 0.0))
# richzhang/colorization `models/alexnet_deploy_lab.prototxt`. For the same with `lightness=True`.
COLORIZATION_ALEXNET_CAFFE = _alexnet("colorization_alexnet_caffe", "data_l", (50.0,))
# richzhang/colorization `models/colorization_deploy_v2.prototxt`. For `DilatedVGG()`.
COLORIZATION_CAFFE = Layout(
    "colorization_caffe",
    _colorization_ports,
    (r"(?!(bw_conv1_1|conv[1-7]_\d+(norm)?)\.).*",),
    prepare=_unscaled,
    restore=_scaled,
)
# richzhang/colorization `colorizers/eccv16.py`. For `DilatedVGG(norm_affine=True)`.
COLORIZATION_TORCH = Layout(
    "colorization_torch",
    _torch_ports,
    (r"model8\..*", r"model_out\..*", r".*\.num_batches_tracked"),
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        SPLITBRAIN_CAFFE,
        COLORIZATION_ALEXNET_CAFFE,
        COLORIZATION_CAFFE,
        COLORIZATION_TORCH,
    )
}
