"""Vision transformers of DINO and MoCo v3; DINO's ResNet-50 and XCiTs.

Names in DINO's full checkpoints: facebookresearch/dino `main_dino.py`, `utils.py` (`MultiCropWrapper`) and
`vision_transformer.py` (`DINOHead`). There the author also says that the files were changed to these names (65) and
that the encoders published alone are the teachers' (44), and users list the form of the ResNet-50's head (189, 251).
"""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import (
    FACEBOOK,
    full_checkpoint,
    one_file,
    resnet_payload,
    vit_payload,
)

_DINO = FACEBOOK + "dino/"
_DINO_PLACES = {"top_keys": ("teacher", ""), "prefixes": ("module.backbone.", "backbone.", "")}


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for entry in (*_dino_vits(), *_dino_others()):
        yield entry
        yield _dino_full(entry)
    yield from _moco_v3()


def _dino_full(entry: Published) -> Published:
    """Returns the entry of the full checkpoint in the same folder: the teacher with its head."""
    epochs = (fact for fact in entry.unverified if "epochs" in fact)
    unverified = ["the number of prototypes, 65536 by a user's word (the file's is taken)"]
    if entry.backbone == "resnet50":
        unverified = [
            "the head: a user lists two layers, 4096 hidden units and a last layer without weight norm",
            "that the head's activation is GELU, as in the published code",
        ]
    elif entry.layout == "xcit":
        unverified += [
            "whether the head has batch-norm (the names in the file say)",
            "that these files have the names of the published code, as the others have by the author's word",
        ]
    return full_checkpoint(
        entry,
        entry.files[0].urls[0].removesuffix(".pth") + "_full_checkpoint.pth",
        "teacher",
        "dino",
        "head.",
        notes=(
            *entry.notes,
            "Encoder and head of the teacher; student, optimizer and center are left out.",
        ),
        unverified=(*epochs, *unverified),
    )


def _dino_vits() -> Iterator[Published]:
    for name, backbone, patch, file, knn, linear, epochs, md5 in (
        ("vits16", "vit_small", 16, "deitsmall16", 74.5, 77.0, 800, "cf0f22"),
        ("vits8", "vit_small", 8, "deitsmall8", 78.3, 79.7, 800, "230cd5"),
        ("vitb16", "vit_base", 16, "vitbase16", 76.1, 78.2, 400, "552daf"),
        ("vitb8", "vit_base", 8, "vitbase8", 77.4, 80.1, 300, "556550"),
    ):
        small = backbone == "vit_small"
        yield Published(
            f"dino_{name}",
            "dino",
            "dino",
            backbone,
            "timm_vit",
            "apache-2.0",
            one_file(
                f"{_DINO}dino_{file}_pretrain/dino_{file}_pretrain.pth",
                md5=md5,
                hash_source="third party",
            ),
            settings={"patch_size": patch, "position_offset": 0.1},
            epochs=epochs,
            preprocessing="imagenet_bicubic",
            metrics={"linear": linear, "knn": knn},
            payload=vit_payload(backbone, patch),
            notes=(
                "Linear: class tokens of the last four blocks, one after the other."
                if small
                else "Linear: class token and mean of the patch tokens of the last block.",
            ),
            unverified=(f"{epochs} epochs (args.txt of the folder says)", "MD5: independent pin"),
            **_DINO_PLACES,
        )


def _dino_others() -> Iterator[Published]:
    yield Published(
        "dino_rn50",
        "dino",
        "dino",
        "resnet50",
        "torchvision_resnet",
        "apache-2.0",
        one_file(f"{_DINO}dino_resnet50_pretrain/dino_resnet50_pretrain.pth"),
        epochs=800,
        preprocessing="imagenet_bicubic",
        metrics={"linear": 75.3, "knn": 67.5},
        payload=resnet_payload("resnet50"),
        unverified=("800 epochs (args.txt of the folder says)",),
        **_DINO_PLACES,
    )
    for name, size, depth, patch, knn, linear, millions in (
        ("xcit_s12_p16", "small", 12, 16, 76.0, 77.8, 26),
        ("xcit_s12_p8", "small", 12, 8, 77.1, 79.2, 26),
        ("xcit_m24_p16", "medium", 24, 16, 76.4, 78.8, 84),
        ("xcit_m24_p8", "medium", 24, 8, 77.9, 80.3, 84),
    ):
        model = f"xcit_{size}_{depth}"
        file = f"dino_{model}_p{patch}_pretrain"
        yield Published(
            f"dino_{name}",
            "dino",
            "dino",
            model,
            "xcit",
            "apache-2.0",
            one_file(f"{_DINO}{file}/{file}.pth", f"{FACEBOOK}xcit/{model}_cp{patch}_dino.pth"),
            settings={"patch_size": patch},
            epochs=300,
            preprocessing="imagenet_bicubic",
            metrics={"linear": linear, "knn": knn},
            approximate_size=f"about {4 * millions} MB ({millions} million parameters)",
            unverified=(
                "300 epochs (args.txt of the folder says)",
                "that the second address, of XCiT's own repository, has the same bytes",
            ),
            **_DINO_PLACES,
        )


def _moco_v3() -> Iterator[Published]:
    mirror = FACEBOOK + "vissl/model_zoo/swav_rn50w5/mocov3-vit-b-300ep.pth.tar"
    for name, backbone, letter, linear in (
        ("vits16", "vit_small", "s", 73.2),
        ("vitb16", "vit_base", "b", 76.7),
    ):
        urls = [f"{FACEBOOK}moco-v3/vit-{letter}-300ep/vit-{letter}-300ep.pth.tar"]
        urls += [mirror] if letter == "b" else []
        yield Published(
            f"moco_v3_{name}",
            "moco_v3",
            "moco",
            backbone,
            "timm_vit",
            "cc-by-nc-4.0",
            one_file(*urls),
            settings={"num_heads": 12, "positions": "sincos_row_first"},
            top_keys=("state_dict",),
            prefixes=("module.base_encoder.",),
            head="moco_v3",
            epochs=300,
            metrics={"linear": linear},
            payload=vit_payload(backbone),
            notes=(
                *(["12 heads, not the usual 6 of this width."] if letter == "s" else []),
                "The file also holds the optimizer and the second encoder.",
            ),
            unverified=("that the second address has the same bytes",) if letter == "b" else (),
        )
