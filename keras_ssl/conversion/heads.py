"""Heads of published checkpoints: projectors and prototypes beside the encoder, as far as the files have them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_ssl.backbones import ProjectionHead
from keras_ssl.conversion.engine import DENSE, Layout, Port, Tensors, batch_norm_ports, convert
from keras_ssl.conversion.preact import ROOT, without_scope


@dataclasses.dataclass(frozen=True)
class HeadKind:
    """What the head of a method looks like and where its tensors are.

    Args:
        root: str. Regular expression of the name under which the perceptron lies, for files that name it otherwise
            too; the first alternative is the one that `extract` writes.
        widths: ints. Of the released network on features of length 2048.
        settings: dict. Further arguments of `ProjectionHead`.
        prototypes: ints. Numbers of prototypes of the released network.
        prototype_root: str. Name of the prototypes, without the last part.
        prepare: callable. Changes the names of the whole checkpoint before the head is looked for. Defaults to `None`.
    """

    root: str
    widths: tuple[int, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    prototypes: tuple[int, ...] = ()
    prototype_root: str = ""
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        return self.root.split("|")[0]


_PLAIN_BN = {"use_bias": False, "output_norm": "plain"}
_SETS = {"widths": (2048, 128), "settings": {"normalize": True}, "prototype_root": "prototypes"}

# Reference code: facebookresearch/swav `src/resnet50.py`; dino `vision_transformer.py`; moco `moco/builder.py`;
# moco-v3 `moco/builder.py`; simsiam `simsiam/builder.py`; barlowtwins `main.py`; vicreg `main_vicreg.py`;
# google-research/simclr `model_util.py`; neuroailab/LocalAggregation `model/resnet_model.py`. Keys are those after
# the prefixes of the encoder were removed: `module.`, and `encoder_q.` (MoCo), `base_encoder.` (MoCo v3), `encoder.`
# (SimSiam).
HEADS: dict[str, HeadKind] = {
    "swav": HeadKind("projection_head", prototypes=(3000,), **_SETS),
    "deepclusterv2": HeadKind("projection_head", prototypes=(3000,) * 3, **_SETS),
    # The number of SeLa-v2's sets is not verified; `read_head` counts those of the file.
    "selav2": HeadKind("projection_head", prototypes=(3000,) * 3, **_SETS),
    "dino": HeadKind(
        "head.mlp|mlp",
        (2048, 2048, 256),
        {
            "hidden_norm": False,
            "activation": "gelu",
            "normalize": True,
            "prototype_kind": "weight_norm",
        },
        prototypes=(65536,),
        prototype_root="head.last_layer|last_layer",
    ),
    "moco_v1": HeadKind("fc", (128,), {"normalize": True}),
    "moco_v2": HeadKind("fc", (2048, 128), {"hidden_norm": False, "normalize": True}),
    "moco_v3": HeadKind("fc|head", (4096, 256), {**_PLAIN_BN, "normalize": True}),
    "simsiam": HeadKind("fc", (2048, 2048, 2048), {**_PLAIN_BN, "output_bias": True}),
    "barlow_twins": HeadKind("projector", (8192, 8192, 8192), {"use_bias": False}),
    "vicreg": HeadKind("projector", (8192, 8192, 8192), {"output_bias": False}),
    "simclr": HeadKind(
        "head_contrastive", (2048, 2048, 128), {"use_bias": False, "output_norm": "scale"}
    ),
    "local_aggregation": HeadKind(
        f"{ROOT}/dense", (128,), {"normalize": True}, prepare=without_scope
    ),
}


def build_head(
    kind: str,
    feature_dim: int = 2048,
    *,
    widths: Sequence[int] | None = None,
    prototypes: Sequence[int] | None = None,
    **settings: Any,
) -> ProjectionHead:
    """Returns a freshly initialized head of a method.

    Args:
        kind: str. A name in `HEADS`.
        feature_dim: int > 0. Length of the encoder's features. Defaults to `2048`.
        widths: ints > 0. Of the dense layers. None: those of the released ResNet-50. Defaults to `None`.
        prototypes: ints > 0. Number of prototypes of each set. None: as released. Defaults to `None`.
        **settings: further arguments of `ProjectionHead`, which change those of the method.

    Raises:
        ValueError: if there is no such kind.
    """
    form = _form(kind)
    return ProjectionHead(
        feature_dim,
        form.widths if widths is None else widths,
        prototypes=form.prototypes if prototypes is None else prototypes,
        **{**form.settings, **settings},
    )


def read_head(kind: str, tensors: Tensors) -> tuple[ProjectionHead, dict[str, Any]]:
    """Returns the head in a checkpoint with its weights, and the certificate of `convert`.

    Args:
        kind: str. A name in `HEADS`.
        tensors: mapping from key to array, prefixes removed; the encoder's may be among them. The sizes are read from
            the shapes, and whether DINO's hidden layers have a batch-norm and its last one a weight norm from the
            names.

    Raises:
        ValueError: if there is no such kind, or its tensors are not in the checkpoint.
    """
    form, layout = _form(kind), HEAD_LAYOUTS[f"{kind}_head"]
    renamed = layout.prepare(dict(tensors))
    kernels = _kernels(form, renamed)
    if not kernels:
        raise ValueError(
            f"Expected a checkpoint with the head of {kind!r} under {form.name!r}. "
            f"Received: {len(tensors)} tensors, none there"
        )
    sizes = [np.shape(renamed[key]) for key in kernels]
    if kind not in ("simclr", "local_aggregation"):  # TensorFlow's (in, out) is Keras's
        sizes = [shape[::-1] for shape in sizes]
    settings: dict[str, Any] = {"widths": [out for _, out in sizes]}
    if form.prototypes:
        found = [np.shape(renamed[key])[0] for key in sorted(renamed) if _is_set(form, key)]
        settings["prototypes"] = found
    if (
        kind == "dino"
    ):  # options of the authors' training; the ResNet-50's last layer has no weight norm
        settings["hidden_norm"] = f"{form.name}.1.running_mean" in renamed
        if f"{form.prototype_root.split('|')[0]}.weight" in renamed:
            settings["prototype_kind"] = "linear"
    head = build_head(kind, sizes[0][0], **settings)
    return head, convert(renamed, head, layout)


def _form(kind: str) -> HeadKind:
    if kind not in HEADS:
        close = difflib.get_close_matches(kind, HEADS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`kind` must be one of {', '.join(HEADS)}.{hint} Received: kind={kind!r}")
    return HEADS[kind]


def _kernels(form: HeadKind, tensors: Tensors) -> list[str]:
    """Returns the names of the dense kernels of the perceptron, in order."""
    root = re.escape(form.name)
    pattern = re.compile(rf"{root}(?:\.(\d+))?\.weight|{root}/nl_(\d+)/dense/kernel|{root}/kernel")
    found = {key: pattern.fullmatch(key) for key in tensors if np.ndim(tensors[key]) == 2}
    places = {key: int(match[1] or match[2] or 0) for key, match in found.items() if match}
    return sorted(places, key=places.__getitem__)


def _is_set(form: HeadKind, key: str) -> bool:
    root = re.escape(form.prototype_root.split("|")[0])
    return bool(re.fullmatch(rf"{root}(\.prototypes\d+)?\.(weight|weight_v)", key))


def _ports(head: keras.Model, form: HeadKind) -> list[Port]:
    if not isinstance(head, ProjectionHead):
        raise ValueError(f"Expected a `ProjectionHead`. Received: {type(head).__name__}")
    return _perceptron_ports(head.projector, form) + _prototype_ports(head, form)


def _perceptron_ports(mlp: Any, form: HeadKind) -> list[Port]:
    """Returns the ports of a perceptron in `torch.nn.Sequential`, or under SimCLR's names."""
    found, place = [], 0
    for index, (dense, norm) in enumerate(zip(mlp.dense_layers, mlp.norms, strict=True)):
        if form.name == "head_contrastive":
            key = f"{form.name}/nl_{index}"
            found.append(Port(f"{key}/dense/kernel", dense.kernel))
            values = norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance
            names = "gamma", "beta", "moving_mean", "moving_variance"
            pairs = zip(names, values, strict=True)
            key = f"{key}/batch_normalization"
            found += [Port(f"{key}/{name}", value) for name, value in pairs if value is not None]
            continue
        if form.name == f"{ROOT}/dense":
            found += [
                Port(f"{form.name}/kernel", dense.kernel),
                Port(f"{form.name}/bias", dense.bias),
            ]
            continue
        key = form.name if len(mlp.dense_layers) == 1 else f"{form.name}.{place}"
        found.append(Port(f"{key}.weight", dense.kernel, DENSE))
        if dense.bias is not None:
            found.append(Port(f"{key}.bias", dense.bias))
        place += 1
        if norm is not None:
            ports = batch_norm_ports(norm, f"{form.name}.{place}")
            found += [port for port in ports if port.variable is not None]
            place += 1
        place += 1  # the activation
    return found


def _prototype_ports(head: ProjectionHead, form: HeadKind) -> list[Port]:
    root, found = form.prototype_root.split("|")[0], []
    for index, layer in enumerate(head.prototypes):
        if head.settings["prototype_kind"] == "weight_norm":
            found.append(Port(f"{root}.weight_g", layer.norm, DENSE))
            found.append(Port(f"{root}.weight_v", layer.kernel, DENSE))
        else:
            several = len(head.prototypes) > 1
            found.append(
                Port(
                    f"{root}.prototypes{index}.weight" if several else f"{root}.weight",
                    layer.kernel,
                )
            )
    return found


def _renamed(tensors: dict[str, Any], form: HeadKind) -> dict[str, Any]:
    """Returns the tensors with the head under its first name, where the file has another one."""
    if form.prepare is not None:
        tensors = form.prepare(tensors)
    for names in (form.root, form.prototype_root):
        first, *others = names.split("|")
        for other in others:
            if not any(key.startswith(f"{first}.") for key in tensors):
                pattern = re.compile(rf"^{re.escape(other)}\.")
                tensors = {pattern.sub(f"{first}.", key): value for key, value in tensors.items()}
    return tensors


def _layout(kind: str, form: HeadKind) -> Layout:
    roots = [name for name in (form.name, form.prototype_root.split("|")[0]) if name]
    own = "|".join(re.escape(root) for root in roots)
    return Layout(
        f"{kind}_head",
        functools.partial(_ports, form=form),
        left_out=(rf"(?!({own})[./]).*", r".*num_batches_tracked", r".*/Momentum"),
        prepare=functools.partial(_renamed, form=form),
    )


HEAD_LAYOUTS = {f"{kind}_head": _layout(kind, form) for kind, form in HEADS.items()}
