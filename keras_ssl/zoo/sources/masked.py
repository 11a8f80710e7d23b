"""Vision transformers of masked prediction: MAE, iBOT and its Swins, I-JEPA.

Names in iBOT's full checkpoints: bytedance/ibot `main_ibot.py` and `models/head.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import (
    FACEBOOK,
    full_checkpoint,
    one_file,
    swin_payload,
    vit_payload,
)

_IBOT = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"

_MAE_BASE = {
    "size": 343_249_461,
    "sha256": "aec5f0b68e5f3193a00b07bc65a37440db549c15b36b8bea242606cc40c4bc5d",
    "sha256_source": "third party",
}
# MAE: name, backbone, file, linear, paper, tuned, md5, facts.
_MAE_ROWS = (
    ("vitb16", "vit_base", "base", 67.8, 68.0, 83.66, "8cad7c", _MAE_BASE),
    ("vitl16", "vit_large", "large", 76.0, 75.8, 85.95, "b8b06e", {}),
    ("vith14", "vit_huge", "huge", 77.2, 76.6, 86.93, "9bdbb0", {}),
)

# iBOT: name, backbone, folder, file, knn, linear, data, epochs.
_IBOT_ROWS = (
    ("vits16", "vit_small", "vits_16", "teacher", 75.2, 77.9, "ImageNet-1K", 800),
    ("vitb16", "vit_base", "vitb_16", "teacher", 77.1, 79.5, "ImageNet-1K", None),
    (
        "vitb16_rand",
        "vit_base",
        "vitb_16_rand_mask",
        "teacher",
        77.3,
        79.8,
        "ImageNet-1K",
        None,
    ),
    ("vitl16", "vit_large", "vitl_16", "teacher", 78.0, 81.0, "ImageNet-1K", None),
    (
        "vitl16_rand",
        "vit_large",
        "vitl_16_rand_mask",
        "teacher",
        77.7,
        81.3,
        "ImageNet-1K",
        None,
    ),
    ("vitb16_in22k", "vit_base", "vitb_16_pt22k", "student", 71.1, 79.0, "ImageNet-22K", None),
    ("vitl16_in22k", "vit_large", "vitl_16_pt22k", "student", 72.9, 82.3, "ImageNet-22K", None),
)

_IBOT_PREFIXES = ("module.backbone.", "backbone.", "")

_GIANT = {
    "width": 1408,
    "depth": 40,
    "num_heads": 16,
    "mlp_ratio": 48 / 11,
    "ffn": "mlp",
    "patch_size": 16,
}
# I-JEPA: name, backbone, file, data, epochs, size, settings.
_IJEPA_ROWS = (
    ("vith14", "vit_huge", "IN1K-vit.h.14-300e", "ImageNet-1K", 300, 224, {"patch_size": 14}),
    (
        "vith16_448",
        "vit_huge",
        "IN1K-vit.h.16-448px-300e",
        "ImageNet-1K",
        300,
        448,
        {"patch_size": 16},
    ),
    (
        "vith14_in22k",
        "vit_huge",
        "IN22K-vit.h.14-900e",
        "ImageNet-22K",
        900,
        224,
        {"patch_size": 14},
    ),
    ("vitg16_in22k", "vit_giant", "IN22K-vit.g.16-600e", "ImageNet-22K", 600, 224, _GIANT),
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield from _mae()
    yield from _ibot()
    yield from _ibot_swins()
    yield from _ijepa()


def _mae() -> Iterator[Published]:
    for name, backbone, file, linear, paper, tuned, md5, facts in _MAE_ROWS:
        yield Published(
            f"mae_{name}",
            "mae",
            "mae",
            backbone,
            "timm_vit",
            "cc-by-nc-4.0",
            one_file(
                f"{FACEBOOK}mae/pretrain/mae_pretrain_vit_{file}.pth",
                md5=md5,
                hash_source="official",
                **facts,
            ),
            settings={"positions": "sincos"} | ({"patch_size": 14} if file == "huge" else {}),
            top_keys=("model",),
            epochs=1600,
            preprocessing="imagenet_bicubic",
            metrics={"linear": linear, "linear_of_the_paper": paper, "fine_tuned": tuned},
            payload=vit_payload(backbone),
            notes=(
                "Trained on normalized pixels. Linear: a batch-norm without affine part comes before the "
                "linear layer.",
            ),
            unverified=("size and SHA-256: independent pins",) if facts else (),
        )
        yield _mae_tuned(name, backbone, file, tuned)


def _mae_tuned(name: str, backbone: str, file: str, accuracy: float) -> Published:
    tuned_md5 = {"base": "1b25e9", "large": "51f550", "huge": "2541f2"}[file]
    return Published(
        f"mae_{name}_finetuned",
        "mae",
        "mae",
        backbone,
        "timm_vit",
        "cc-by-nc-4.0",
        one_file(
            f"{FACEBOOK}mae/finetune/mae_finetuned_vit_{file}.pth",
            md5=tuned_md5,
            hash_source="official",
        ),
        settings={"positions": "sincos", "pooling": "mean_then_norm"}
        | ({"patch_size": 14} if file == "huge" else {}),
        top_keys=("model",),
        epochs=1600,
        preprocessing="imagenet_bicubic",
        metrics={"fine_tuned": accuracy},
        payload=vit_payload(backbone),
        notes=("Fine-tuned with labels; features are the normalized mean of the patch tokens.",),
    )


def _ibot() -> Iterator[Published]:
    for name, backbone, folder, file, knn, linear, data, epochs in _IBOT_ROWS:
        entry = Published(
            f"ibot_{name}",
            "ibot",
            "ibot",
            backbone,
            "timm_vit",
            "apache-2.0",
            one_file(f"{_IBOT}{folder}/checkpoint_{file}.pth"),
            settings={"position_offset": 0.1},
            top_keys=("state_dict", file),
            prefixes=_IBOT_PREFIXES,
            epochs=epochs,
            data=data,
            preprocessing="imagenet_bicubic",
            metrics={"linear": linear, "knn": knn},
            payload=vit_payload(backbone),
            notes=(
                f"The {file}'s weights.",
                "Linear: class tokens of the last four blocks."
                if backbone == "vit_small"
                else "Linear: class token and mean of the patch tokens of the last block.",
            ),
            unverified=("whether the host still answers",),
        )
        yield entry
        yield full_checkpoint(
            entry,
            f"{_IBOT}{folder}/checkpoint.pth",
            file,
            "dino",
            "head.",
            notes=(
                f"Encoder and head of the {file}. Scores are those of the class token; prototypes of the patches, "
                "where they are others, are left out.",
                *entry.notes[1:],
            ),
            unverified=(
                *entry.unverified,
                "the names inside, which are those that the published training code saves",
                "that the head has GELU and no norms, as by default in that code",
            ),
        )


def _ibot_swins() -> Iterator[Published]:
    for window, knn, linear, epochs in ((7, 75.3, 78.6, None), (14, 76.2, 79.3, 300)):
        yield Published(
            f"ibot_swint_w{window}",
            "ibot",
            "ibot",
            "swin_tiny",
            "swin",
            "apache-2.0",
            one_file(f"{_IBOT}swint_{window}/checkpoint_teacher.pth"),
            settings={"window_size": window},
            top_keys=("state_dict", "teacher"),
            prefixes=_IBOT_PREFIXES,
            epochs=epochs,
            preprocessing="imagenet_bicubic",
            metrics={"linear": linear, "knn": knn},
            payload=swin_payload(window),
            notes=(
                "The teacher's weights.",
                f"Windows of {window} places; in the last stage{'s' if window == 14 else ''} the map is one window.",
                "Features: mean of the last map. Linear: means of the last four blocks' maps, 2304 numbers.",
            ),
            unverified=("whether the host still answers",),
        )


def _ijepa() -> Iterator[Published]:
    for name, backbone, file, data, epochs, size, settings in _IJEPA_ROWS:
        known = backbone == "vit_huge"
        yield Published(
            f"ijepa_{name}",
            "ijepa",
            "ijepa",
            backbone,
            "timm_vit",
            "cc-by-nc-4.0",
            one_file(f"{FACEBOOK}ijepa/{file}.pth.tar"),
            settings={**settings, "class_token": False, "pooling": "mean", "positions": "sincos"},
            image_size=size,
            top_keys=("target_encoder",),
            prefixes=("module.", ""),
            epochs=epochs,
            data=data,
            preprocessing="imagenet" if size == 224 else "square",
            payload=vit_payload(backbone, settings["patch_size"], size, False) if known else None,
            notes=("No class token: features are the mean of the patch tokens.",),
            unverified=(
                "the preprocessing of the evaluation",
                "the epochs, read from the file's name",
                *([] if known else ["width, depth, heads and hidden width of the giant"]),
            ),
        )
