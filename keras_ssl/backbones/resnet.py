"""Residual networks of any width that equal torchvision's, SimCLR's (selective kernels too) and BYOL's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone, check_stages
from keras_ssl.backbones.residual import PADDINGS, ResidualBlock, convolution, max_pool
from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.convolution import mean_of_map

STEMS = ("imagenet", "cifar")


@keras.saving.register_keras_serializable(package="keras_ssl")
class ResNet(Backbone):
    """ResNet v1.5: stride in the 3x3 convolution, batch-norm epsilon 1e-5 and momentum 0.9.

    Args:
        blocks: ints > 0. Number of residual blocks of each stage; (3, 4, 6, 3) is ResNet-34 and 50.
        bottleneck: bool. Bottleneck (50 and deeper) or basic blocks (18, 34). Defaults to `True`.
        filters: ints > 0. Channels inside the blocks of each stage; the stem gives the first. Every stage but
            the first halves the map (see `last_stride`). Defaults to `(64, 128, 256, 512)`.
        width: int or float > 0. Multiplies every number of channels: the w2, w4 of SwAV and the x2 of VICReg.
            Not torchvision's "wide", which widens the 3x3 only. Defaults to `1`.
        stem: str. `"imagenet"`: 7x7 convolution with stride 2, then 3x3 max-pool with stride 2. `"cifar"`: 3x3
            convolution with stride 1, no pool. Defaults to `"imagenet"`.
        padding: str. Where the zeros of strided layers go; it changes the numbers, not the variables. `"torch"`: on
            every side, as in PyTorch. `"same"`: as TensorFlow's `"same"` everywhere, which for an even size means
            more below and to the right; BYOL. `"simclr"`: on every side of a convolution, but `"same"` for the
            max-pool. Defaults to `"torch"`.
        selective_kernels: bool. Whether the network is SimCLR v2's "+SK": a stem of three 3x3 convolutions (with
            the ImageNet stem), `SelectiveKernel` for the 3x3 of every bottleneck, and a 2x2 mean on the shortcuts
            that have a convolution. Defaults to `False`.
        last_stride: int. 2, or 1: the last stage of several does not halve the map, as in VISSL's colorization.
            Defaults to `2`.
        lightness: bool. Whether it sees L - 50 of CIE Lab, one channel, instead of colors, as in VISSL's colorization;
            `mean` and `std` do not count then. Defaults to `False`.
        zero_init_residual: bool. Whether the last gamma of every block starts at 0: SimCLR, BYOL, SimSiam,
            Barlow Twins, VICReg, MoCo v3; not MoCo v1, v2. Defaults to `False`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last ReLU and "features", its mean over h and w;
    "layers": a tuple of the maps after each stage.

    Reference: He et al., 2015, https://arxiv.org/abs/1512.03385, table 1; CIFAR stem: section 4.2 and SimCLR
    (https://arxiv.org/abs/2002.05709), appendix B.9. Reference code: pytorch/vision
    `torchvision/models/resnet.py`; facebookresearch/swav `src/resnet50.py` (width); google-research/simclr
    `resnet.py` (padding, selective kernels); Haiku `nets/resnet.py` (BYOL's padding); facebookresearch/vissl
    `vissl/models/trunks/resnext.py` (`last_stride`), `vissl/data/ssl_transforms/img_pil_to_lab_tensor.py`
    (`lightness`).
    Differs from the reference: VISSL's colorization rounds L to 8 bits before it is centered.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        bottleneck: bool = True,
        filters: Sequence[int] = (64, 128, 256, 512),
        width: float = 1,
        stem: str = "imagenet",
        padding: str = "torch",
        selective_kernels: bool = False,
        last_stride: int = 2,
        lightness: bool = False,
        zero_init_residual: bool = False,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        if lightness:
            kwargs |= {"mean": None, "std": None}
        super().__init__(image_size, **kwargs)
        self.settings = {
            "blocks": list(blocks),
            "bottleneck": bottleneck,
            "filters": list(filters),
            "width": width,
            "stem": stem,
            "padding": padding,
            "selective_kernels": selective_kernels,
            "last_stride": last_stride,
            "lightness": lightness,
            "zero_init_residual": zero_init_residual,
            "synchronized": synchronized,
        }
        self._check_settings()
        self.stem, self.padding, self.recompute = stem, padding, recompute
        self.lightness = lightness
        channels = [round(width * count) for count in filters]
        strides = [1, *[2] * (len(blocks) - 2), last_stride][: len(blocks)]
        self.stem_convs, self.stem_norms = self._make_stem(channels[0])
        self.stem_conv, self.stem_norm = self.stem_convs[-1], self.stem_norms[-1]
        self.stages = [
            [
                ResidualBlock(
                    channels[stage],
                    strides[stage] if index == 0 else 1,
                    bottleneck=bottleneck,
                    zero_init_residual=zero_init_residual,
                    synchronized=synchronized,
                    padding=padding,
                    selective_kernels=selective_kernels,
                    dtype=self.dtype_policy,
                    name=f"stage{stage + 1}_block{index}",
                )
                for index in range(count)
            ]
            for stage, count in enumerate(blocks)
        ]
        self.feature_dim = self.stages[-1][-1].channels
        self._finish()

    def _check_settings(self) -> None:
        settings = self.settings
        for name, allowed in (("stem", STEMS), ("padding", PADDINGS), ("last_stride", (1, 2))):
            if settings[name] not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {allowed}. Received: {name}={settings[name]!r}"
                )
        if settings["selective_kernels"] and not settings["bottleneck"]:
            raise ValueError(
                "`selective_kernels` are for bottleneck blocks. Received: bottleneck=False"
            )
        check_stages(settings["blocks"], settings["filters"])
        if settings["width"] <= 0:
            raise ValueError(f"`width` must be positive. Received: width={settings['width']}")

    def _make_stem(self, channels: int) -> tuple[list[Any], list[Any]]:
        """Returns the convolutions of the stem and the batch-norm of each."""
        if self.stem == "cifar":
            units = [(channels, 3, 1)]
        elif self.settings["selective_kernels"]:
            units = [(channels // 2, 3, 2), (channels // 2, 3, 1), (channels, 3, 1)]
        else:
            units = [(channels, 7, 2)]
        convs, norms = [], []
        for index, (filters, size, stride) in enumerate(units, start=1):
            number = "" if index == len(units) else f"{index}"
            common = {"dtype": self.dtype_policy}
            name = f"stem_conv{number}"
            convs.append(convolution(filters, size, stride, self.padding, name=name, **common))
            norm = BatchNormalization(
                synchronized=self.settings["synchronized"], name=f"stem_norm{number}", **common
            )
            norms.append(norm)
        return convs, norms

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels = 1 if self.lightness else input_shape[-1]
        for conv, norm in zip(self.stem_convs, self.stem_norms, strict=True):
            conv.build((None, None, None, channels))
            channels = conv.filters
            norm.build((None, None, None, channels))
        for block in (block for stage in self.stages for block in stage):
            block.build((None, None, None, channels))
            channels = block.channels
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        training: bool | None = None,
        keys: tf.Tensor | None = None,
        keep: tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
        output: str = "features",
    ) -> dict[str, Any]:
        self._check_call(output, keep, mask)
        x = self.normalize(x)
        for conv, norm in zip(self.stem_convs, self.stem_norms, strict=True):
            x = tf.nn.relu(norm(conv(x), training=training))
        if self.stem == "imagenet":
            x = max_pool(x, self.padding)
        maps = self._run_stages(self.stages, x, training)
        result = {"features": mean_of_map(maps[-1]), "map": maps[-1]}
        return {**result, "layers": maps} if output == "layers" else result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
