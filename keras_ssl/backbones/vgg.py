"""VGG with batch-norm, as DeepCluster, DeeperCluster and its RotNets trained it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_ssl.backbones.plain import PlainBackbone
from keras_ssl.backbones.units import Unit


@keras.saving.register_keras_serializable(package="keras_ssl")
class VGG(PlainBackbone):
    """Stages of 3x3 convolutions with bias, batch-norm and ReLU, each ending in a 2x2 max-pool; dense layers if wanted.

    Args:
        blocks: ints > 0. Number of convolutions of each stage; (2, 2, 3, 3, 3) is VGG-16.
        filters: ints > 0. Channels of each stage. Defaults to `(64, 128, 256, 512, 512)`.
        dense: ints > 0. Widths of the dense layers on the flattened last map, (4096, 4096) in the published
            networks; then other image sizes are taken only if that map keeps its size, so not for local views of
            another size. Defaults to `()`.
        final_relu: bool. Whether the last dense layer has a ReLU; DeepCluster and DeeperCluster cluster what comes
            before it. Defaults to `True`.
        dropout: float in [0, 1). Rate before each dense layer but the first in training; 0.5 in the published
            networks. Defaults to `0.0`.
        sobel: bool. Whether the network sees edges of the normalized image instead of colors. Defaults to `False`.
        border: int >= 0. Zeros around the image before anything else; 1 in all networks of DeeperCluster (its 2
            zeros with Sobel are one more because that filter does not pad there), 0 in DeepCluster. Defaults to `0`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each convolution again instead of keeping what is
            inside it. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last pool; "features": what the last dense layer gives, without
    dense layers the mean of "map" over h and w; "layers": a tuple of the maps after the ReLU of each convolution,
    before the pools.

    Reference: Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556, table 1, D; batch-norm as in
    torchvision. Reference code: facebookresearch/deepcluster `models/vgg16.py`; facebookresearch/DeeperCluster
    `src/model/vgg16.py` and `src/model/model_factory.py` (border).
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        filters: Sequence[int] = (64, 128, 256, 512, 512),
        dense: Sequence[int] = (),
        final_relu: bool = True,
        dropout: float = 0.0,
        sobel: bool = False,
        border: int = 0,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        if not blocks or len(blocks) != len(filters):
            raise ValueError(
                "`blocks` and `filters` must have one number for each stage. "
                f"Received: blocks={blocks}, filters={filters}"
            )
        shared = {
            "dense": list(dense),
            "final_relu": final_relu,
            "dropout": dropout,
            "sobel": sobel,
            "border": border,
            "synchronized": synchronized,
        }
        units = [
            Unit(channels, pool=(2, 2) if index == count - 1 else None)
            for count, channels in zip(blocks, filters, strict=True)
            for index in range(count)
        ]
        super().__init__(
            units,
            dense_norm=False,
            dropout_from=1,
            lightness=False,
            lab=False,
            image_size=image_size,
            **shared,
            **kwargs,
        )
        self.recompute = recompute
        self.settings = {"blocks": list(blocks), "filters": list(filters), **shared}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
