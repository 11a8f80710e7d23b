"""ResNets of SwAV, DeepCluster-v2, SeLa-v2, MoCo, SimSiam, PCL and DenseCL."""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import FACEBOOK, one_file, resnet_entry

_SWAV = FACEBOOK + "deepcluster/"
_VISSL = FACEBOOK + "vissl/model_zoo/"
_CROPS_8, _CROPS_2, _CROPS_6 = "2x224+6x96", "2x224", "2x160+4x96"

# name, method, width, epochs, batch, crops, linear top-1, file
_CLUSTERING = (
    ("swav_rn50", "swav", 1, 800, 4096, _CROPS_8, 75.3, "swav_800ep"),
    ("swav_rn50_400ep", "swav", 1, 400, 4096, _CROPS_8, 74.6, "swav_400ep"),
    ("swav_rn50_200ep", "swav", 1, 200, 4096, _CROPS_8, 73.9, "swav_200ep"),
    ("swav_rn50_100ep", "swav", 1, 100, 4096, _CROPS_8, 72.1, "swav_100ep"),
    ("swav_rn50_200ep_bs256", "swav", 1, 200, 256, _CROPS_8, 72.7, "swav_200ep_bs256"),
    ("swav_rn50_400ep_bs256", "swav", 1, 400, 256, _CROPS_8, 74.3, "swav_400ep_bs256"),
    ("swav_rn50_400ep_2x224", "swav", 1, 400, 4096, _CROPS_2, 70.1, "swav_400ep_2x224"),
    ("deepclusterv2_rn50", "deepcluster_v2", 1, 800, 4096, _CROPS_8, 75.2, "deepclusterv2_800ep"),
    (
        "deepclusterv2_rn50_400ep",
        "deepcluster_v2",
        1,
        400,
        4096,
        _CROPS_6,
        74.3,
        "deepclusterv2_400ep",
    ),
    (
        "deepclusterv2_rn50_400ep_2x224",
        "deepcluster_v2",
        1,
        400,
        4096,
        _CROPS_2,
        70.2,
        "deepclusterv2_400ep_2x224",
    ),
    ("selav2_rn50", "sela_v2", 1, 400, 4096, _CROPS_6, 71.8, "selav2_400ep"),
    ("selav2_rn50_2x224", "sela_v2", 1, 400, 4096, _CROPS_2, 67.2, "selav2_400ep_2x224"),
    ("swav_rn50w2", "swav", 2, 400, 4096, "2x224+4x96", 77.3, "swav_RN50w2_400ep"),
    ("swav_rn50w4", "swav", 4, 400, 2560, "2x224+4x96", 77.9, "swav_RN50w4_400ep"),
    ("swav_rn50w5", "swav", 5, 400, None, None, 78.5, "swav_RN50w5_400ep"),
)
_MIRRORS = {
    "deepclusterv2_rn50": "",
    "deepclusterv2_rn50_400ep": "",
    "deepclusterv2_rn50_400ep_2x224": "",
    "swav_rn50w5": "swav_rn50w5/",
}

# name, method, epochs, linear top-1, path, facts of the file, prefix
_MOMENTUM = (
    (
        "moco_v1_rn50",
        "moco_v1",
        200,
        60.6,
        "moco/moco_checkpoints/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar",
        {"md5": "b251726a", "hash_source": "official"},
        "module.encoder_q.",
    ),
    (
        "moco_v2_rn50_200ep",
        "moco_v2",
        200,
        67.7,
        "moco/moco_checkpoints/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar",
        {"md5": "59fd9945", "hash_source": "official"},
        "module.encoder_q.",
    ),
    (
        "moco_v2_rn50",
        "moco_v2",
        800,
        71.1,
        "moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        {"md5": "a04e12f8", "hash_source": "official"},
        "module.encoder_q.",
    ),
    *(
        (
            f"moco_v3_rn50{'' if epochs == 1000 else f'_{epochs}ep'}",
            "moco_v3",
            epochs,
            linear,
            f"moco-v3/r-50-{epochs}ep/r-50-{epochs}ep.pth.tar",
            {},
            "module.base_encoder.",
        )
        for epochs, linear in ((1000, 74.6), (300, 72.8), (100, 68.9))
    ),
    (
        "simsiam_rn50_100ep",
        "simsiam",
        100,
        68.1,
        "simsiam/models/100ep/pretrain/checkpoint_0099.pth.tar",
        {},
        "module.encoder.",
    ),
    (
        "simsiam_rn50_100ep_bs256",
        "simsiam",
        100,
        68.3,
        "simsiam/models/100ep-256bs/pretrain/checkpoint_0099.pth.tar",
        {},
        "module.encoder.",
    ),
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield from (_clustering(*row) for row in _CLUSTERING)
    for name, method, epochs, linear, path, facts, prefix in _MOMENTUM:
        yield resnet_entry(
            name,
            method,
            "moco" if "moco" in method else method,
            files=one_file(FACEBOOK + path, **facts),
            licence="cc-by-nc-4.0",
            top_keys=("state_dict",),
            prefixes=(prefix,),
            head=method,
            epochs=epochs,
            metrics={"linear": linear},
            notes=(
                "The file also holds the optimizer and the second encoder: three to four times the size.",
                *(["Batch size 512."] if name == "simsiam_rn50_100ep" else []),
            ),
        )
    yield from _prototypes_and_dense()


def _clustering(
    name: str,
    method: str,
    width: int,
    epochs: int,
    batch: int | None,
    crops: str | None,
    linear: float,
    file: str,
) -> Published:
    file += "_pretrain.pth.tar"
    urls, unverified = [_SWAV + file], []
    if name in _MIRRORS:
        urls.append(f"{_VISSL}{_MIRRORS[name]}{file}")
        unverified.append("that the second address has the same bytes (it has the same file name)")
    if width in (2, 4):
        unverified.append(f"batch size {batch}")
    if name == "swav_rn50w5":
        unverified.append("400 epochs: VISSL's table says 300 for a file of this name")
    if method == "sela_v2":
        unverified.append("that there are three prototype heads, as in DeepCluster-v2")
    views = f"Crops {crops}" + (f", batch size {batch}." if width == 1 else " (from the script).")
    return resnet_entry(
        name,
        method,
        "swav",
        width=width,
        files=one_file(*urls),
        licence="cc-by-nc-4.0",
        top_keys=("state_dict", ""),
        prefixes=("module.", ""),
        head=method.replace("_", ""),
        epochs=epochs,
        preprocessing="swav",
        metrics={"linear": linear},
        notes=(views,) if crops else (),
        unverified=tuple(unverified),
    )


def _prototypes_and_dense() -> Iterator[Published]:
    for version, linear in ((1, 61.5), (2, 67.6)):
        yield resnet_entry(
            f"pcl_v{version}_rn50",
            f"pcl_v{version}",
            "pcl",
            files=one_file(
                "https://storage.googleapis.com/sfr-pcl-data-research/PCL_checkpoint/"
                f"PCL_v{version}_epoch200.pth.tar"
            ),
            licence="mit",
            top_keys=("state_dict",),
            prefixes=("module.encoder_q.",),
            epochs=200,
            metrics={"linear": linear},
        )
    for name, backbone, file, data, epochs, precision in (
        ("densecl_rn50_in1k", "resnet50", "r50_imagenet_200ep", "ImageNet-1K", 200, 58.7),
        ("densecl_rn101_in1k", "resnet101", "r101_imagenet_200ep", "ImageNet-1K", 200, 61.3),
        ("densecl_rn50_coco_800ep", "resnet50", "r50_coco_800ep", "COCO", 800, 56.7),
        ("densecl_rn50_coco", "resnet50", "r50_coco_1600ep", "COCO", 1600, 57.2),
    ):
        yield resnet_entry(
            name,
            "densecl",
            "densecl",
            backbone=backbone,
            files=one_file(
                f"https://huggingface.co/xinlongwang/DenseCL/resolve/main/densecl_{file}.pth"
            ),
            licence="gpl-3.0",
            top_keys=("state_dict",),
            prefixes=("backbone.", ""),
            epochs=epochs,
            data=data,
            metrics={"voc_detection_ap": precision},
            unverified=(
                "whether the names begin with `backbone.`",
                "that the repository's licence covers the weights",
            ),
        )
