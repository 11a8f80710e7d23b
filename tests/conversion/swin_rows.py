"""Swin with odd and even windows, smaller and larger than its maps, as rows of the table in `parity.py`."""

from __future__ import annotations

import functools

from keras_ssl.backbones import Swin

BLOCKS, HEADS, WIDTH = (2, 2, 3, 2), (1, 2, 4, 8), 8
# name: window, side of the images that it is built for, sizes of images; windows that result are those of `SHAPES`
NETWORKS = {
    "swin_w7": (7, 224, ((224, 224), (66, 91))),
    "swin_w14": (14, 224, ((224, 224), (97, 97))),
    "swin_w5": (5, 52, ((52, 52), (47, 77))),
}
SHAPES = {
    "swin_w7": ((7, 3), (7, 3), (7, 3), (7, 0)),
    "swin_w14": ((14, 7), (14, 7), (14, 0), (7, 0)),
    "swin_w5": ((5, 2), (5, 2), (3, 0), (1, 0)),
}


def network(name):
    """Returns our network of a row, not filled."""
    window, size, _ = NETWORKS[name]
    return Swin(WIDTH, BLOCKS, HEADS, window_size=window, image_size=size)


def reference(name):
    """Returns the reference of a row with random weights and a classifier, which gives no output."""
    import torch

    from keras_ssl.conversion.references.torch_swin import Swin as Reference
    from tests.conversion.torch_random import randomized

    window, size, _ = NETWORKS[name]

    def make():
        module = Reference(WIDTH, BLOCKS, HEADS, window, size)
        for key, table in module.named_parameters():
            if key.endswith("bias_table"):
                torch.nn.init.normal_(table)
        module.head = torch.nn.Linear(WIDTH << len(BLOCKS) - 1, 5)
        return module

    return randomized(make)


def rows():
    """Returns the rows for the table in `parity.py`."""
    from tests.conversion.parity import Row

    return [
        Row(
            name,
            "swin",
            "PyTorch, written afresh",
            functools.partial(_row, name),
            sizes,
            ("torch",),
        )
        for name, (_, _, sizes) in NETWORKS.items()
    ]


def _row(name):
    from tests.conversion.convnet_cases import outputs_of, tensors_of

    module, ours = reference(name), network(name)

    def expected(images):
        outputs = outputs_of(module, ours, images)
        return {key: outputs[key].numpy() for key in ("features", "map")}

    return tensors_of(module), ours, expected
