"""Networks that read a published file without TensorFlow, to compare a converted one with.

They share no code with `keras_ssl.backbones` and none of the tables of ports: names and shapes are accounted for by
PyTorch's strict loading, or by counting what NumPy reads. From a layout they take what its files hold beside the
encoder (`left_out`), and, where names differ between files, its way to the official ones. PyTorch is imported when a
network is built.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_ssl.conversion import LAYOUTS
from keras_ssl.conversion.references import forms, numpy_resnets
from keras_ssl.conversion.references.running import (
    Run,
    Tensors,
    load_strictly,
    normalized,
    numpy_run,
    torch_run,
)

Names = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Reference:
    """How the files of one layout are read into a reference network.

    Args:
        kind: str. `"PyTorch"` or `"NumPy"`.
        form: callable. Of PyTorch: from tensors and settings to a module. Of NumPy: from tensors, prepared images and
            settings to a dict of arrays.
        names: callable. Gives the tensors their official names, where files differ. None: they have them. Defaults
            to `None`.
        lightness: bool. Whether the network sees the lightness of the images instead of normalized colors. Defaults
            to `False`.
    """

    kind: str
    form: Callable[..., Any]
    names: Names | None = None
    lightness: bool = False

    @property
    def missing(self) -> str:
        """The package that is not installed, or `""`."""
        absent = self.kind == "PyTorch" and importlib.util.find_spec("torch") is None
        return "torch" if absent else ""

    def build(
        self, layout: str, tensors: Tensors, settings: Mapping[str, Any], mean: Any, std: Any
    ) -> Run:
        """Returns the function from float32 images `(batch, height, width, 3)` in [0, 1] to features and more.

        That returns `"features"` `(batch, n)` and `"tokens"` `(batch, patches, n)` or `"map"` `(batch, h, w, n)`.

        Args:
            layout: str. Name in `LAYOUTS`.
            tensors: mapping from name to array, as in the file after its prefixes.
            settings: mapping. Of the converted network; only what no tensor shows is taken from it.
            mean: floats. Subtracted from the images.
            std: floats. Divides after that.

        Raises:
            ValueError: if the tensors are not those of the reference network.
        """
        left_out = LAYOUTS[layout].left_out
        tensors = dict(tensors) if self.names is None else self.names(dict(tensors))
        prepared = functools.partial(normalized, mean=mean, std=std)
        if self.kind == "NumPy":
            network = functools.partial(self.form, settings=settings)
            return numpy_run(network, tensors, left_out, prepared)
        import torch

        try:
            with torch.device("meta"):
                module = self.form(tensors, settings)
        except KeyError as error:
            raise ValueError(
                f"Expected a {layout} checkpoint. Received: one without {error}"
            ) from error
        if self.lightness:
            from keras_ssl.conversion.references.torch_convnets import lightness as prepared
        return torch_run(load_strictly(module, tensors, left_out), prepared)


def _simclr(tensors: Tensors, images: np.ndarray, settings: Mapping[str, Any]) -> dict[str, Any]:
    selective = settings["selective_kernels"]
    return numpy_resnets.simclr(tensors, images, settings["blocks"], selective)


def _byol(tensors: Tensors, images: np.ndarray, settings: Mapping[str, Any]) -> dict[str, Any]:
    return numpy_resnets.byol(tensors, images, settings["blocks"])


def _without_scope(layout: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors of the encoder that a TF1 layout takes, without their scope."""
    named = LAYOUTS[layout].prepare(tensors)
    return {key.removeprefix("base_model/"): value for key, value in named.items()}


def _in_order(tensors: dict[str, Any]) -> dict[str, Any]:
    return numpy_resnets.created(LAYOUTS["simclr_tf2"].prepare(tensors))


def _with_sobel(layout: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors under their official names, with the fixed Sobel layer if it was left out of the file."""
    from keras_ssl.conversion.references.torch_convnets import sobel_layer

    fixed = {f"sobel.{key}": value.numpy() for key, value in sobel_layer(0).state_dict().items()}
    return {**fixed, **LAYOUTS[layout].prepare(tensors)}


def _with_both_norms(tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns a ConvNeXt's tensors with its last norm under both names."""
    alias = {
        f"norms.3.{k}": tensors[f"norm.{k}"] for k in ("weight", "bias") if f"norm.{k}" in tensors
    }
    return {**alias, **tensors}


def _torch(form: Callable[..., Any], names: Names | None = None, **more: Any) -> Reference:
    return Reference("PyTorch", form, names, **more)


def _as(layout: str) -> Names:
    """Returns how a layout renames tensors; only for layouts that do nothing else to them."""
    return LAYOUTS[layout].prepare


_sobel = functools.partial(functools.partial, _with_sobel)
_scope = functools.partial(functools.partial, _without_scope)
_deepcluster = functools.partial(forms.alexnet, sobel=1, parallel=True)
_jigsaw = functools.partial(forms.blocks, stride=2, pad=0, response=True)
_colorization = functools.partial(forms.blocks, pad=0)
_resnet_of_lightness = functools.partial(forms.resnet, last_stride=1)
_edges = functools.partial(forms.blocks, sobel=True)

# By layout; one line for each. Layouts of heads have none.
REFERENCES: dict[str, Reference] = {
    "torchvision_resnet": _torch(forms.resnet),
    "vissl_resnet_colorization": _torch(_resnet_of_lightness, lightness=True),
    "timm_vit": _torch(forms.vit),
    "dinov2": _torch(forms.dinov2, _as("dinov2")),
    "dinov3": _torch(forms.dinov3),
    "dinov3_convnext": _torch(forms.convnext, _with_both_norms),
    "xcit": _torch(forms.xcit),
    "vissl_regnet": _torch(forms.regnet, _as("vissl_regnet")),
    "deepcluster_alexnet": _torch(_deepcluster, _sobel("deepcluster_alexnet")),
    "deepcluster_vgg16": _torch(forms.vgg, _sobel("deepcluster_vgg16")),
    "deepercluster_vgg16": _torch(forms.vgg_in_a_body, _sobel("deepercluster_vgg16")),
    "sela_alexnet": _torch(forms.alexnet, _as("sela_alexnet")),
    "rotnet_alexnet": _torch(forms.blocks, _as("rotnet_alexnet")),
    "vissl_alexnet_jigsaw": _torch(_jigsaw, _as("vissl_alexnet_jigsaw")),
    "vissl_alexnet_colorization": _torch(
        _colorization, _as("vissl_alexnet_colorization"), lightness=True
    ),
    "vissl_alexnet_deepcluster": _torch(_edges, _sobel("vissl_alexnet_deepcluster")),
    "simclr_tf1": Reference("NumPy", _simclr, _scope("simclr_tf1")),
    "simclr_tf1_ema": Reference("NumPy", _simclr, _scope("simclr_tf1_ema")),
    "simclr_tf2": Reference("NumPy", _simclr, _in_order),
    "byol_haiku": Reference("NumPy", _byol, _as("byol_haiku")),
}

__all__ = ["REFERENCES", "Reference"]
