"""Split-brain autoencoders and colorization as rows of the table in `parity.py`."""

from __future__ import annotations

import functools

import numpy as np

F = (4, 8, 12, 12, 8)
ALEXNET = {"first_border": 0, "groups": (1, 2, 1, 2, 2), "first_norm": 6, "ceil_pool": True}
BLOCKS, FILTERS = (2, 1, 2, 1, 2, 1, 1), (4, 6, 8, 8, 10, 10, 12)

# No pool has to round at 67 pixels, as at the 227 of the official network; at the others at least one has to.
SPLIT_SIZES = ((75, 75), (80, 93), (67, 90))
COLOR_SIZES = ((32, 32), (47, 33))


def rows():
    """Returns the rows for the table in `parity.py`."""
    from tests.conversion.parity import Row

    made = (
        ("as released", "splitbrain_caffe", _split_brain, SPLIT_SIZES),
        ("another centering", "splitbrain_caffe", _split_brain_scaled, SPLIT_SIZES),
        ("another centering", "colorization_alexnet_caffe", _lightness_scaled, SPLIT_SIZES),
        ("Caffe", "colorization_caffe", _colorization, COLOR_SIZES),
        ("PyTorch", "colorization_torch", _colorization_torch, COLOR_SIZES),
    )
    reference = "PyTorch, written afresh; Lab in NumPy"
    return [
        Row(name, layout, reference, make, sizes, ("torch",)) for name, layout, make, sizes in made
    ]


def alexnet(factor=(1.0, 1.0, 1.0), offset=(-50.0, 0.0, 0.0)):
    """Returns a reference filled at random and a network of the same form that nothing has filled."""
    from keras_ssl.backbones import AlexNet
    from tests.conversion.torch_color import CaffeAlexNet
    from tests.conversion.torch_random import randomized

    module = randomized(lambda: CaffeAlexNet(F, factor, offset))
    _fill(getattr(module, module.first).weight, factor)
    _fill(getattr(module, module.first).bias, offset)
    sees = {"lab": True} if len(factor) == 3 else {"lightness": True}
    return module, AlexNet(F, image_size=75, **sees, **ALEXNET)


def colorization(affine=False):
    """Returns the same for colorization."""
    from keras_ssl.backbones import DilatedVGG
    from tests.conversion.torch_color import Colorization
    from tests.conversion.torch_random import randomized

    scale = 100.0 if affine else 1.0
    module = randomized(lambda: Colorization(BLOCKS, FILTERS, affine, scale))
    for layer in [
        *module.modules()
    ]:  # as large as it takes for two images to tell apart at the end
        if hasattr(layer, "kernel_size"):
            _fill(layer.weight, layer.weight * 3.0)
    _fill(module.model1[0].weight, module.model1[0].weight * scale)
    network = DilatedVGG(BLOCKS, filters=FILTERS, norm_affine=affine, image_size=32)
    return module, network


def _fill(parameter, values):
    import torch

    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values).view(parameter.shape))


def outputs(module, images):
    """Returns what a reference says about images in [0, 1]."""
    import torch

    from tests.conversion.torch_color import lab

    with torch.no_grad():
        return module(lab(images))


def _expected(module, images):
    found = {key: outputs(module, images)[key].numpy() for key in ("features", "map")}
    for value in found.values():  # the images tell apart, so that the numbers mean something
        assert np.ptp(value, axis=0).max() > 0.05 * np.abs(value).max()
    return found


def _caffe_row(module, network):
    from tests.conversion.torch_color import caffe_layers, flat

    return flat(caffe_layers(module)), network, functools.partial(_expected, module)


def _split_brain():
    return _caffe_row(*alexnet())


def _split_brain_scaled():
    return _caffe_row(*alexnet((0.02, 1.1, 0.9), (-0.9, 0.2, -3.0)))


def lightness_alexnet():
    """Returns the AlexNet of colorization as `alexnet` does."""
    return alexnet((1.0,), (-50.0,))


def _lightness_scaled():
    return _caffe_row(*alexnet((0.5,), (-20.0,)))


def _colorization():
    return _caffe_row(*colorization())


def _colorization_torch():
    module, network = colorization(affine=True)
    tensors = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    return tensors, network, functools.partial(_expected, module)
