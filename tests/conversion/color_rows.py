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
    """Returns a reference filled at random, with fc6 and fc7, which give no output, and a network of its form."""
    from torch import nn

    from keras_ssl.backbones import AlexNet
    from keras_ssl.conversion.references.torch_color import CaffeAlexNet
    from tests.conversion.torch_random import randomized

    def make():
        module = CaffeAlexNet(F, len(factor))
        module.fc6 = nn.Conv2d(F[-1], 5, 6, padding=5, dilation=2)
        module.fc7 = nn.Conv2d(5, 5, 1)
        return module

    module = randomized(make)
    _fill(getattr(module, module.first).weight, factor)
    _fill(getattr(module, module.first).bias, offset)
    sees = {"lab": True} if len(factor) == 3 else {"lightness": True}
    return module, AlexNet(F, image_size=75, **sees, **ALEXNET)


def colorization(caffe=True):
    """Returns the same for colorization, with the layers that predict colors."""
    from torch import nn

    from keras_ssl.backbones import DilatedVGG
    from keras_ssl.conversion.references.torch_color import Colorization
    from tests.conversion.torch_random import randomized

    def make():
        module = Colorization(BLOCKS, FILTERS, caffe)
        up, out = nn.ConvTranspose2d(FILTERS[-1], 6, 4, 2, 1), nn.Conv2d(6, 2, 1, bias=False)
        for name, layer in zip(
            ("conv8_1", "conv8_313") if caffe else ("model8", "model_out"), (up, out), strict=True
        ):
            module.add_module(name, layer if name != "model8" else nn.Sequential(layer))
        return module

    module = randomized(make)
    for convolution in (layer for layer in module.modules() if hasattr(layer, "kernel_size")):
        # as large as it takes for two images to tell apart at the end
        _fill(convolution.weight, convolution.weight * 3.0)
    first = module.stages[0][0]
    _fill(first.weight, first.weight * module.scale)
    network = DilatedVGG(BLOCKS, filters=FILTERS, norm_affine=not caffe, image_size=32)
    return module, network


def _fill(parameter, values):
    import torch

    with torch.no_grad():
        parameter.copy_(torch.as_tensor(values).view(parameter.shape))


def outputs(module, images):
    """Returns what a reference says about images in [0, 1]."""
    import torch

    from keras_ssl.conversion.references.colors import lab

    with torch.no_grad():
        return module(torch.tensor(lab(images)).permute(0, 3, 1, 2))


def caffe_layers(module, factor=999.98):
    """Returns the arrays of each layer as Caffe keeps them: statistics times the factor beside them."""
    layers = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "running_mean"):
            values = [layer.running_mean * factor, layer.running_var * factor]
            layers[name] = [v.numpy().copy() for v in values] + [np.float32([factor])]
        elif hasattr(layer, "kernel_size"):
            values = [layer.weight] + ([] if layer.bias is None else [layer.bias])
            layers[name] = [v.detach().numpy().copy() for v in values]
    return layers


def flat(layers):
    """Returns layers of Caffe as the reader of files names their arrays."""
    return {f"{name}.{i}": blob for name, blobs in layers.items() for i, blob in enumerate(blobs)}


def _expected(module, images):
    given = outputs(module, images)
    found = {key: given[key].numpy() for key in ("features", "map")}
    for value in found.values():  # the images tell apart, so that the numbers mean something
        assert np.ptp(value, axis=0).max() > 0.05 * np.abs(value).max()
    return found


def _caffe_row(module, network):
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
    module, network = colorization(caffe=False)
    tensors = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    return tensors, network, functools.partial(_expected, module)
