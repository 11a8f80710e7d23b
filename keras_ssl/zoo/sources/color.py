"""Split-brain autoencoders and colorization: the networks of Zhang, Isola and Efros, which look at Lab."""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import one_file

_PLAIN = "http://eecs.berkeley.edu/~rich.zhang/projects/"
_PROJECTS = "https://people.eecs.berkeley.edu/~rich.zhang/projects/"  # of richzhang/splitbrainauto `README.md`
_SPLIT_BRAIN = "2017_splitbrain/files/models/model_splitbrainauto_clcl"
_COLORIZATION = (
    _PLAIN + "2016_colorization/files/demo_v2/"
)  # `models/fetch_*.sh` of richzhang/colorization
_SETTINGS = {
    "first_border": 0,
    "groups": (1, 2, 1, 2, 2),
    "first_norm": 6,
    "ceil_pool": True,
}
# Convolutions after the first: filters, and kernel size squared times channels that each of them sees.
_ALEXNET = ((256, 1200), (384, 2304), (384, 1728), (256, 1728))
_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512), (3, 512), (3, 512))


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield from _split_brain()
    yield from _colorization_alexnet()
    yield from _colorization()


def _split_brain() -> Iterator[Published]:
    for name, tail, note in (
        ("splitbrain_alexnet", "", "As trained; the second address is not encrypted."),
        (
            "splitbrain_alexnet_rescaled",
            "_rs",
            "Rescaled by the authors for fine-tuning (Krähenbühl et al., 2016); the second address is not encrypted.",
        ),
    ):
        yield Published(
            name,
            "splitbrain",
            "splitbrain",
            "alexnet",
            "splitbrain_caffe",
            "mit",
            one_file(*(f"{base}{_SPLIT_BRAIN}{tail}.caffemodel" for base in (_PROJECTS, _PLAIN))),
            settings={**_SETTINGS, "lab": True},
            image_size=227,
            container="caffemodel",
            preprocessing="lab",
            payload=_alexnet_payload(3),
            notes=(note, _POOLED),
            unverified=("the resize before the crop", "which other layers the file holds"),
        )


def _colorization_alexnet() -> Iterator[Published]:
    for name, tail, note in (
        (
            "colorization_alexnet",
            "_rs",
            "Rescaled (Krähenbühl et al., 2016), as the authors probe it.",
        ),
        ("colorization_alexnet_unscaled", "", "Not rescaled."),
    ):
        yield Published(
            name,
            "colorization",
            "colorization",
            "alexnet",
            "colorization_alexnet_caffe",
            "not-stated",
            one_file(f"{_COLORIZATION}alexnet_release_450000_nobn{tail}.caffemodel"),
            settings={**_SETTINGS, "lightness": True},
            image_size=227,
            container="caffemodel",
            preprocessing="lightness",
            payload=_alexnet_payload(1),
            notes=(
                f"Batch-norm is absorbed in the convolutions. {note}",
                _POOLED,
                "The address is not encrypted.",
            ),
            unverified=("the resize before the crop", "which other layers the file holds"),
        )


def _colorization() -> Iterator[Published]:
    for name, tail, note in (
        ("colorization_vgg", "", "Trained with the loss that lets rare colors count."),
        ("colorization_vgg_norebal", "_norebal", "Trained with the plain loss."),
    ):
        yield Published(
            name,
            "colorization",
            "colorization",
            "vgg_dilated",
            "colorization_caffe",
            "not-stated",
            one_file(f"{_COLORIZATION}colorization_release_v2{tail}.caffemodel"),
            container="caffemodel",
            preprocessing="lightness_square",
            payload=_vgg_payload(affine=False),
            notes=(note, _FEATURES, "The address is not encrypted."),
            unverified=("which other layers the file holds",),
        )
    yield Published(
        "colorization_vgg_torch",
        "colorization",
        "colorization",
        "vgg_dilated",
        "colorization_torch",
        "not-stated",
        one_file(
            "https://colorizers.s3.us-east-2.amazonaws.com/colorization_release_v2-9b330a0b.pth",
            sha256="9b330a0b",
            hash_source="official",
        ),
        settings={"norm_affine": True},
        preprocessing="lightness_square",
        payload=_vgg_payload(affine=True),
        notes=("The authors' network for PyTorch.", _FEATURES),
        unverified=("whether its weights are those of `colorization_vgg`",),
    )


_POOLED = "Features are the mean of the map after the last pool; fc6 and fc7 are left out."
_FEATURES = (
    "Features are the mean of the map before it is enlarged to predict colors, a choice of this library; the layers "
    "after it are left out."
)


def _alexnet_payload(channels: int) -> int:
    """Returns the bytes of kernels and biases in float32."""
    first = 96, 11 * 11 * channels
    return 4 * sum(filters * (seen + 1) for filters, seen in (first, *_ALEXNET))


def _vgg_payload(affine: bool) -> int:
    """Returns the bytes of the tensors in float32: kernels, biases, and two or four vectors of each batch-norm."""
    count, channels = 0, 1
    for convolutions, filters in _STAGES:
        for _ in range(convolutions):
            count, channels = count + filters * (9 * channels + 1), filters
        count += filters * (4 if affine else 2)
    return 4 * count
