"""Networks of Zhang, Isola and Efros: the AlexNet of split-brain autoencoders, and the one that colorizes.

Caffe names a tensor by its layer and its place there: weight and bias of a convolution, or mean, variance and the
factor of both of a batch-norm. As in Caffe, which fills a network by the names of its layers, all other layers of a
file are no part of the encoder.
"""

from __future__ import annotations

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

CENTER = np.array([50.0, 0.0, 0.0])  # of Lab, as `AlexNet(lab=True)` subtracts it
SPLIT_BRAIN = {
    **{"stride": 4, "first_border": 0, "groups": [1, 2, 1, 2, 2], "first_norm": 6},
    **{"response_norm": False, "ceil_pool": True, "lab": True, "dense": []},
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


def _split_brain_ports(network: keras.Model) -> list[Port]:
    check_form(network, AlexNet, "splitbrain_caffe", SPLIT_BRAIN)
    return [
        port
        for number, unit in enumerate(network.units, start=1)
        for port in _convolution(unit, f"conv{number}")
    ]


def _centered(tensors: Tensors) -> Tensors:
    """Returns the tensors without `data_lab`, the factor and offset that the file has for each channel of Lab.

    The network subtracts 50 from L itself. What the file does beside that goes into the first convolution, which has
    no border, so that nothing is lost; a factor of 1 and an offset of -50, 0 and 0 change no bit.
    """
    tensors = _flat(tensors)
    missing = [
        key for key in ("data_lab.0", "data_lab.1", "conv1.0", "conv1.1") if key not in tensors
    ]
    if missing:
        raise ValueError(
            "Expected a splitbrain_caffe checkpoint with the layers 'data_lab' and 'conv1'. "
            f"Received: one without {', '.join(missing)}"
        )
    factor, offset = (
        np.asarray(tensors.pop(f"data_lab.{place}"), np.float64).reshape(-1) for place in (0, 1)
    )
    kernel, bias = (np.asarray(tensors[f"conv1.{place}"], np.float64) for place in (0, 1))
    if factor.shape != (3,) or offset.shape != (3,) or kernel.ndim != 4 or kernel.shape[1] != 3:
        raise ValueError(
            "Expected 'data_lab' with one factor and one offset for each of three channels that 'conv1' sees. "
            f"Received: shapes {factor.shape}, {offset.shape} and {kernel.shape}"
        )
    tensors["conv1.0"] = kernel * factor[:, None, None]
    tensors["conv1.1"] = bias + kernel.sum((2, 3)) @ (factor * CENTER + offset)
    return tensors


def _with_center(tensors: Tensors) -> Tensors:
    first = {"data_lab.0": np.ones((3, 1, 1, 1), np.float32), "data_lab.1": np.float32(-CENTER)}
    return {**first, **tensors}


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


# richzhang/splitbrainauto `models/deploy_lab.prototxt`. For `AlexNet` of the form `SPLIT_BRAIN`.
SPLITBRAIN_CAFFE = Layout(
    "splitbrain_caffe",
    _split_brain_ports,
    (r"(?!conv[1-5]\.).*",),
    prepare=_centered,
    restore=_with_center,
)
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
    layout.name: layout for layout in (SPLITBRAIN_CAFFE, COLORIZATION_CAFFE, COLORIZATION_TORCH)
}
