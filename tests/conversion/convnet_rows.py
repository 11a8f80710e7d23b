"""RegNetY, AlexNet, VGG, XCiT and ConvNeXt as rows of the table in `parity.py`."""

from __future__ import annotations

import functools

# name in `convnet_cases.CASES`, layout, sizes: said here too, since the cases themselves need PyTorch
CASES = {
    "regnety": ("vissl_regnet", ((32, 32), (47, 33))),
    "deepcluster_alexnet": ("deepcluster_alexnet", ((128, 128), (127, 129))),
    "deepcluster_vgg16": ("deepcluster_vgg16", ((16, 16), (17, 19))),
    "deepercluster_vgg16": ("deepercluster_vgg16", ((16, 16), (17, 15))),
    "rotnet_vgg16": ("deepercluster_vgg16", ((16, 16), (17, 15))),
    "sela_alexnet": ("sela_alexnet", ((128, 128), (127, 129))),
    "vissl_alexnet_deepcluster": ("vissl_alexnet_deepcluster", ((128, 128), (127, 129))),
    "rotnet_alexnet": ("rotnet_alexnet", ((128, 128), (127, 129))),
    "vissl_alexnet_jigsaw": ("vissl_alexnet_jigsaw", ((64, 64), (71, 93))),
    "vissl_alexnet_colorization": ("vissl_alexnet_colorization", ((80, 80), (71, 93))),
    "xcit_p16": ("xcit", ((32, 32), (45, 83))),
    "xcit_p8": ("xcit", ((32, 32), (45, 23))),
    "convnext": ("dinov3_convnext", ((64, 64), (47, 77))),
}


def rows():
    """Returns the rows for the table in `parity.py`."""
    from tests.conversion.parity import Row

    return [
        Row(
            name,
            layout,
            "PyTorch, written afresh",
            functools.partial(_row, name),
            sizes,
            ("torch",),
        )
        for name, (layout, sizes) in CASES.items()
    ]


def _row(name):
    from tests.conversion import convnet_cases as cases

    case = cases.CASES[name]
    module, network = cases.randomized(case.reference), case.network()

    def expected(images):
        outputs = cases.outputs_of(module, network, images)
        kind = "tokens" if "tokens" in outputs else "map"
        return {key: outputs[key].numpy() for key in ("features", kind)}

    return cases.tensors_of(module), network, expected
