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
from keras_ssl.conversion.references import colors, forms, numpy_resnets
from keras_ssl.conversion.references.running import (
    Run,
    Tensors,
    load_strictly,
    matches,
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
        sees: callable. From images `(batch, height, width, 3)` in [0, 1] to what the network sees instead of
            normalized colors. None: it sees those. Defaults to `None`.
    """

    kind: str
    form: Callable[..., Any]
    names: Names | None = None
    sees: Callable[[np.ndarray], np.ndarray] | None = None

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
            settings: mapping. Of the converted network, and its `image_size`; only what no tensor shows is taken
                from it.
            mean: floats. Subtracted from the images.
            std: floats. Divides after that.

        Raises:
            ValueError: if the tensors are not those of the reference network.
        """
        left_out = LAYOUTS[layout].left_out
        tensors = dict(tensors) if self.names is None else self.names(dict(tensors))
        prepared = self.sees or functools.partial(normalized, mean=mean, std=std)
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


def _with_index(tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns a Swin's tensors; where a file leaves the index of a table out, it is computed."""
    from keras_ssl.conversion.references.torch_swin import distances

    table, whole = "relative_position_bias_table", dict(tensors)
    for key in (key for key in tensors if key.endswith(table)):
        side = round(len(tensors[key]) ** 0.5)
        index = distances((side + 1) // 2).numpy()
        whole.setdefault(key.removesuffix(table) + "relative_position_index", index)
    return whole


def _dotted(layout: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors of a TF1 layout as PyTorch names parts of parts; what it leaves out keeps its name."""
    named, left_out = LAYOUTS[layout].prepare(tensors), LAYOUTS[layout].left_out
    return {k if matches(k, left_out) else k.replace("/", "."): v for k, v in named.items()}


def _caffe(tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the arrays of Caffe's layers as PyTorch names them.

    Those of a batch-norm are divided by the factor that stands with them, or 0 if that is 0; biases have one axis, and
    what has a factor for each channel is a convolution.
    """
    named = {}
    for key, value in tensors.items():
        layer, _, place = key.rpartition(".")
        value = np.asarray(value)
        if layer.endswith("norm") and place in "012" and f"{layer}.2" in tensors:
            if place == "2":
                continue
            count = np.float64(np.reshape(tensors[f"{layer}.2"], -1)[0])
            value = value.reshape(-1) * (1.0 / count if count else 0.0)
            named[f"{layer}.{('running_mean', 'running_var')[int(place)]}"] = value
        elif place == "1":
            named[f"{layer}.bias"] = value.reshape(-1)
        elif place == "0":
            factor = layer in ("data_lab", "data_l")
            named[f"{layer}.weight"] = value.reshape(-1, 1, 1, 1) if factor else value
        else:
            named[key] = value
    return named


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
_colors_of_caffe = functools.partial(forms.colorization, caffe=True)
_colors_of_torch = functools.partial(forms.colorization, caffe=False)
_resnet_of_lightness = functools.partial(forms.resnet, last_stride=1)
_edges = functools.partial(forms.blocks, sobel=True)

# By layout; one line for each. Layouts of heads have none.
REFERENCES: dict[str, Reference] = {
    "torchvision_resnet": _torch(forms.resnet),
    "vissl_resnet_colorization": _torch(_resnet_of_lightness, sees=colors.lightness),
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
        _colorization, _as("vissl_alexnet_colorization"), sees=colors.lightness
    ),
    "vissl_alexnet_deepcluster": _torch(_edges, _sobel("vissl_alexnet_deepcluster")),
    "splitbrain_caffe": _torch(forms.caffe_alexnet, _caffe, sees=colors.lab),
    "colorization_alexnet_caffe": _torch(forms.caffe_alexnet, _caffe, sees=colors.lab),
    "colorization_caffe": _torch(_colors_of_caffe, _caffe, sees=colors.lab),
    "colorization_torch": _torch(_colors_of_torch, sees=colors.lab),
    "swin": _torch(forms.swin, _with_index),
    "local_aggregation_tf1": _torch(
        forms.preact, functools.partial(_dotted, "local_aggregation_tf1")
    ),
    "simclr_tf1": Reference("NumPy", _simclr, _scope("simclr_tf1")),
    "simclr_tf1_ema": Reference("NumPy", _simclr, _scope("simclr_tf1_ema")),
    "simclr_tf2": Reference("NumPy", _simclr, _in_order),
    "byol_haiku": Reference("NumPy", _byol, _as("byol_haiku")),
}

__all__ = ["REFERENCES", "Reference"]
