"""The networks of Zhang, Isola and Efros in PyTorch, small, their files' tensors, and Lab in NumPy."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from keras_ssl.conversion.references.torch_convnets import last, pooled

ALEXNET_SHAPES = ((11, 4, 0, 1), (5, 1, 2, 2), (3, 1, 1, 1), (3, 1, 1, 2), (3, 1, 1, 2))
DILATIONS = (1, 1, 1, 1, 2, 2, 1)


def lab(images):
    """CIE Lab (D65) of sRGB images in [0, 1], in float64, `(batch, 3, height, width)`."""
    rgb = np.asarray(images, np.float64)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    rows = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169]]
    rows += [[0.019334, 0.119193, 0.950227]]
    x, y, z = np.moveaxis(linear @ np.transpose(rows) / [0.95047, 1.0, 1.08883], -1, 0)
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    stacked = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
    return torch.tensor(stacked, dtype=torch.float32)


class CaffeAlexNet(nn.Module):
    """Takes Lab as it is, L in [0, 100], or L alone; pools round the size of the map up; fc6 and fc7 are in the file.

    The first layer, `data_lab` or `data_l`, has a factor and an offset for each channel.
    """

    def __init__(self, f, factor=(1.0, 1.0, 1.0), offset=(-50.0, 0.0, 0.0)):
        super().__init__()
        channels = len(factor)
        self.first = "data_lab" if channels == 3 else "data_l"
        center = nn.Conv2d(channels, channels, 1, groups=channels)
        with torch.no_grad():
            center.weight.copy_(torch.tensor(factor).view(-1, 1, 1, 1))
            center.bias.copy_(torch.tensor(offset))
        setattr(self, self.first, center)
        for number, (size, stride, pad, groups) in enumerate(ALEXNET_SHAPES, start=1):
            after = f[number - 1]
            conv = nn.Conv2d(channels, after, size, stride, pad, groups=groups)
            setattr(self, f"conv{number}", conv)
            channels = after
        self.fc6 = nn.Conv2d(channels, 5, 6, padding=5, dilation=2)
        self.fc7 = nn.Conv2d(5, 5, 1)

    def forward(self, lab):
        center = getattr(self, self.first)
        x, maps = center(lab[:, : center.in_channels]), []
        for number in range(1, 6):
            maps.append(x := F.relu(getattr(self, f"conv{number}")(x)))
            if number in (1, 2, 5):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return pooled(x, maps)


class Colorization(nn.Module):
    """`model1` to `model8` as in the authors' PyTorch; without `affine` the batch-norms of their Caffe network."""

    def __init__(self, blocks, filters, affine, scale=1.0):
        super().__init__()
        self.scale, self.blocks = scale, blocks
        channels = 1
        for number, (count, after) in enumerate(zip(blocks, filters, strict=True), start=1):
            rate, layers = DILATIONS[number - 1], []
            for index in range(count):
                stride = 2 if number <= 3 and index == count - 1 else 1
                layers += [nn.Conv2d(channels, after, 3, stride, rate, rate), nn.ReLU()]
                channels = after
            layers.append(nn.BatchNorm2d(after, affine=affine))
            setattr(self, f"model{number}", nn.Sequential(*layers))
        self.model8 = nn.Sequential(nn.ConvTranspose2d(channels, 6, 4, 2, 1), nn.ReLU())
        self.model_out = nn.Conv2d(6, 2, 1, bias=False)

    def forward(self, lab):
        x, maps = (lab[:, :1] - 50.0) / self.scale, []
        for number, count in enumerate(self.blocks, start=1):
            for index, layer in enumerate(getattr(self, f"model{number}")):
                x = layer(x)
                if index % 2 and index < 2 * count - 1:
                    maps.append(x)
            maps.append(x)
        return {**pooled(x, maps), "map": last(x)}


def caffe_layers(module, factor=999.98):
    """Returns the arrays of each layer as Caffe keeps them: statistics times the factor beside them."""
    layers = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            values = [layer.running_mean * factor, layer.running_var * factor]
            layers[name] = [v.numpy().copy() for v in values] + [np.float32([factor])]
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            values = [layer.weight] + ([] if layer.bias is None else [layer.bias])
            layers[name] = [v.detach().numpy().copy() for v in values]
    if not isinstance(module, Colorization):
        return layers
    renamed = {}
    for name, blobs in layers.items():
        stage, _, place = name.removeprefix("model").partition(".")
        if stage not in "1234567":
            renamed[f"conv{name}"] = blobs
        elif len(blobs) == 3:
            renamed[f"conv{stage}_{module.blocks[int(stage) - 1]}norm"] = blobs
        else:
            key = f"conv{stage}_{int(place) // 2 + 1}"
            renamed[f"bw_{key}" if key == "conv1_1" else key] = blobs
    return renamed


def flat(layers):
    """Returns layers of Caffe as the reader of files names their arrays."""
    return {f"{name}.{i}": blob for name, blobs in layers.items() for i, blob in enumerate(blobs)}
