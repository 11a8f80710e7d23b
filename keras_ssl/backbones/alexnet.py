"""AlexNet as the self-supervised methods of 2016 to 2020 trained it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_ssl.backbones.plain import PlainBackbone
from keras_ssl.backbones.units import Unit

KERNELS, BORDERS = (11, 5, 3, 3, 3), (2, 2, 1, 1, 1)
POOLED = (True, True, False, False, True)


@keras.saving.register_keras_serializable(package="keras_ssl")
class AlexNet(PlainBackbone):
    """Five convolutions with ReLU, three max-pools 3x3 with stride 2, dense layers if wanted.

    The pools follow the first, second and last convolution. Each convolution has a bias; batch-norm (epsilon 1e-5,
    momentum 0.9) stands between it and its ReLU. The smallest image is 63 pixels wide.

    | variant | arguments |
    | --- | --- |
    | DeepCluster | `sobel=True, dense=(4096, 4096)` |
    | SeLa | `dense=(4096, 4096)` |
    | RotNet | `filters=(64, 192, 384, 256, 256), dense=(4096, 4096), dense_norm=True` |
    | Jigsaw of VISSL | `stride=2, first_border=0, first_norm=3, groups=(1, 2, 1, 2, 2), \
response_norm=True` |
    | colorization of VISSL | `first_border=0, groups=(1, 2, 1, 2, 2), lightness=True` |
    | split-brain autoencoder | `first_border=0, groups=(1, 2, 1, 2, 2), first_norm=6, ceil_pool=True, lab=True` |
    | colorization by its authors | the same with `lightness=True` instead of `lab=True` |

    Args:
        filters: five ints > 0. Channels of the convolutions. Defaults to `(96, 256, 384, 384, 256)`.
        stride: int > 0. Of the first convolution. Defaults to `4`.
        first_border: int >= 0. Zeros around the image for the first convolution: 2, in VISSL's grouped networks 0.
            Defaults to `2`.
        groups: five ints > 0. Groups of the convolutions; Krizhevsky's two graphics cards are (1, 2, 1, 2, 2).
            Defaults to `(1, 1, 1, 1, 1)`.
        first_norm: int, 1 to 6. Number of the first convolution with a batch-norm, which all after it have too; 6 for
            none. Defaults to `1`.
        response_norm: bool. Whether the first two pools are followed by `local_response_norm`. Defaults to
            `False`.
        dense: ints > 0. Widths of the dense layers on the flattened last map; then other image sizes are taken
            only if that map keeps its size, so not for local views of another size. Defaults to `()`.
        dense_norm: bool. Whether dense layers have a batch-norm instead of a bias (RotNet). Defaults to `False`.
        final_relu: bool. Whether the last dense layer has a ReLU; DeepCluster clusters what comes before it. Defaults
            to `True`.
        dropout: float in [0, 1). Rate before each dense layer in training; 0.5 in DeepCluster and SeLa. Defaults
            to `0.0`.
        sobel: bool. Whether the network sees edges of the normalized image instead of colors. Defaults to `False`.
        lightness: bool. Whether it sees L - 50 of CIE Lab instead of colors; `mean` and `std` do not count then.
            Defaults to `False`.
        lab: bool. Whether it sees L - 50, a and b of CIE Lab instead of colors; likewise. Defaults to `False`.
        ceil_pool: bool. Whether the last window of a pool may reach over the edge of the map, as in Caffe; makes no
            difference at 227 pixels. Defaults to `False`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each convolution again instead of keeping what is
            inside it. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last pool; "features": what the last dense layer gives, without
    dense layers the mean of "map" over h and w; "layers": a tuple of the maps after the ReLU of each convolution,
    before the pools, which the linear probes of these papers read.

    Reference: Krizhevsky, Sutskever, Hinton, 2012. Reference code: facebookresearch/deepcluster `models/alexnet.py`;
    yukimasano/self-label `models/alexnet.py`; gidariss/FeatureLearningRotNet `architectures/AlexNet.py`;
    facebookresearch/vissl `vissl/models/trunks/alexnet_jigsaw.py`, `alexnet_colorization.py`;
    richzhang/splitbrainauto `models/deploy_lab.prototxt`; richzhang/colorization `models/alexnet_deploy_lab.prototxt`.
    Differs from the reference: VISSL's colorization rounds L to 8 bits before it is centered. Lab is scikit-image's;
    the color layer of the split-brain authors' own Caffe has other last digits, at most 0.05 in a.
    """

    def __init__(
        self,
        filters: Sequence[int] = (96, 256, 384, 384, 256),
        *,
        stride: int = 4,
        first_border: int = 2,
        groups: Sequence[int] = (1, 1, 1, 1, 1),
        first_norm: int = 1,
        response_norm: bool = False,
        dense: Sequence[int] = (),
        dense_norm: bool = False,
        final_relu: bool = True,
        dropout: float = 0.0,
        sobel: bool = False,
        lightness: bool = False,
        lab: bool = False,
        ceil_pool: bool = False,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        if not len(filters) == len(groups) == 5 or not 1 <= first_norm <= 6:
            raise ValueError(
                "`filters` and `groups` must have five entries and `first_norm` must be 1 to 6. "
                f"Received: filters={filters}, groups={groups}, first_norm={first_norm}"
            )
        shared = {
            "dense": list(dense),
            "dense_norm": dense_norm,
            "final_relu": final_relu,
            "dropout": dropout,
            "sobel": sobel,
            "lightness": lightness,
            "lab": lab,
            "synchronized": synchronized,
        }
        units = [
            Unit(
                filters[index],
                KERNELS[index],
                stride if index == 0 else 1,
                first_border if index == 0 else BORDERS[index],
                groups[index],
                index + 1 >= first_norm,
                (3, 2) if POOLED[index] else None,
                response_norm and index < 2,
                ceil_pool,
            )
            for index in range(5)
        ]
        super().__init__(units, dropout_from=0, border=0, image_size=image_size, **shared, **kwargs)
        self.recompute = recompute
        self.settings = {
            "filters": list(filters),
            "stride": stride,
            "first_border": first_border,
            "groups": list(groups),
            "first_norm": first_norm,
            "response_norm": response_norm,
            "ceil_pool": ceil_pool,
            **shared,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
