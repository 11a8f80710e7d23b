"""ResNets of Barlow Twins and VICReg, alone and with the projector.

Names in the full checkpoints are those that the published training code saves: `main.py` of
facebookresearch/barlowtwins, `main_vicreg.py` of facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import FACEBOOK, full_checkpoint, one_file, resnet_entry

_BARLOW = FACEBOOK + "barlowtwins/"
# The encoder in a checkpoint of the training code, and in a file that holds it alone.
_PLACES = {"top_keys": ("model", ""), "prefixes": ("module.backbone.", "")}


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield from _barlow_twins()
    yield from _vicreg()


def _barlow_twins() -> Iterator[Published]:
    for name, path, linear, remark, full in (
        (
            "barlowtwins_rn50",
            "ljng/resnet50.pth",
            {"linear": 73.5},
            "of the project's README",
            "ljng/checkpoint.pth",
        ),
        (
            "barlowtwins_rn50_hub",
            "ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth",
            {},
            "of the project's hub file",
            "",
        ),
    ):
        entry = resnet_entry(
            name,
            "barlow_twins",
            "barlowtwins",
            files=one_file(_BARLOW + path),
            licence="mit",
            epochs=1000,
            metrics=linear,
            notes=(f"The address {remark}; batch size 2048.",),
            unverified=(
                "whether the addresses of README and hub file are one run or two",
                "the names in the full checkpoint",
            ),
            **_PLACES,
        )
        yield entry
        if full:
            yield _with_projector(
                entry,
                _BARLOW + full,
                "Batch size 2048.",
                "The batch-norm behind the projector is the loss's, and is left out.",
            )


def _vicreg() -> Iterator[Published]:
    for name, file, backbone, width, linear in (
        ("vicreg_rn50", "resnet50", "resnet50", 1, 73.2),
        ("vicreg_rn50x2", "resnet50x2", "resnet50", 2, 75.5),
        ("vicreg_rn200x2", "resnet200x2", "resnet200", 2, 77.3),
    ):
        entry = resnet_entry(
            name,
            "vicreg",
            "vicreg",
            backbone=backbone,
            width=width,
            files=one_file(f"{FACEBOOK}vicreg/{file}.pth"),
            licence="mit",
            epochs=1000 if width == 1 else None,
            metrics={"linear": linear},
            unverified=("1000 epochs",) if width == 1 else (),
            **_PLACES,
        )
        yield entry
        yield _with_projector(entry, f"{FACEBOOK}vicreg/{file}_fullckpt.pth")


def _with_projector(entry: Published, url: str, *notes: str) -> Published:
    epochs = tuple(fact for fact in entry.unverified if "epochs" in fact)
    return full_checkpoint(
        entry,
        url,
        "model",
        entry.method,
        "",
        notes=(*notes, "The optimizer in the file is left out."),
        unverified=(
            *epochs,
            "the names inside, which are those that the published training code saves",
            "that its encoder is that of the file without head, whose accuracy this is",
        ),
    )
