"""The colorization network: VGG that halves by stride, looks wide by dilation, and sees lightness alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_ssl.backbones.plain import PlainBackbone
from keras_ssl.backbones.units import Unit


@keras.saving.register_keras_serializable(package="keras_ssl")
class DilatedVGG(PlainBackbone):
    """Stages of 3x3 convolutions with bias and ReLU, without pools; a batch-norm follows the last ReLU of each stage.

    The last convolution of a halved stage has stride 2, and the stages with dilation see as far as if they were halved
    too. The defaults are the encoder of "Colorful image colorization": its eight stages but the last, which
    enlarges the map again to predict colors on it.

    Args:
        blocks: ints > 0. Number of convolutions of each stage. Defaults to `(2, 2, 3, 3, 3, 3, 3)`.
        filters: ints > 0. Channels of each stage. Defaults to `(64, 128, 256, 512, 512, 512, 512)`.
        halved: int >= 0. Number of stages, from the first, that halve the map. Defaults to `3`.
        dilations: ints > 0. Dilation of the convolutions of each stage. Defaults to `(1, 1, 1, 1, 2, 2, 1)`.
        norm_affine: bool. Whether batch-norm has a factor and an offset: the authors' Caffe network has none, their
            PyTorch network has both. Defaults to `False`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each convolution again instead of keeping what is
            inside it. Defaults to `False`.
        image_size: see `Backbone`. Defaults to `224`. The network makes L - 50 of CIE Lab of the images, so `mean` and
            `std` do not count.

    Returns "map" `(batch, h, w, channels)` after the last batch-norm, at an eighth of the image's side; "features", its
    mean over h and w, a choice of this library: the authors probe an AlexNet. "layers": a tuple of the maps after
    each convolution with its ReLU and batch-norm.

    Reference: Zhang, Isola and Efros, 2016, https://arxiv.org/abs/1603.08511. Reference code:
    richzhang/colorization `models/colorization_deploy_v2.prototxt`; `colorizers/eccv16.py` (PyTorch).
    """

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 3, 3, 3, 3, 3),
        *,
        filters: Sequence[int] = (64, 128, 256, 512, 512, 512, 512),
        halved: int = 3,
        dilations: Sequence[int] = (1, 1, 1, 1, 2, 2, 1),
        norm_affine: bool = False,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        units = _units(blocks, filters, halved, dilations, norm_affine)
        super().__init__(
            units,
            dense=(),
            dense_norm=False,
            final_relu=True,
            dropout=0.0,
            dropout_from=0,
            sobel=False,
            lightness=True,
            lab=False,
            border=0,
            synchronized=synchronized,
            image_size=image_size,
            **kwargs,
        )
        self.recompute = recompute
        self.settings = {
            "blocks": list(blocks),
            "filters": list(filters),
            "halved": halved,
            "dilations": list(dilations),
            "norm_affine": norm_affine,
            "synchronized": synchronized,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}


def _units(
    blocks: Sequence[int],
    filters: Sequence[int],
    halved: int,
    dilations: Sequence[int],
    norm_affine: bool,
) -> list[Unit]:
    """Returns the convolutions of all stages; the last of each stage has the batch-norm, and the stride if it halves.

    Raises:
        ValueError: if the stages do not have one number each, or one that halves is dilated.
    """
    if not blocks or not len(blocks) == len(filters) == len(dilations):
        raise ValueError(
            "`blocks`, `filters` and `dilations` must have one number for each stage. "
            f"Received: blocks={blocks}, filters={filters}, dilations={dilations}"
        )
    if any(rate > 1 for rate in dilations[:halved]):
        raise ValueError(
            "Expected dilation 1 in the stages that halve the map. "
            f"Received: halved={halved}, dilations={dilations}"
        )
    return [
        Unit(
            channels,
            stride=2 if stage < halved and index == count - 1 else 1,
            border=rate,
            dilation=rate,
            batch_norm=index == count - 1,
            norm_last=True,
            affine=norm_affine,
        )
        for stage, (count, channels, rate) in enumerate(
            zip(blocks, filters, dilations, strict=True)
        )
        for index in range(count)
    ]
