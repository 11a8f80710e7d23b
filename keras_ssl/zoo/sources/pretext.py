"""The older works: SeLa, DeepCluster, DeeperCluster, RotNet, NPID, Local Aggregation."""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import File, Published
from keras_ssl.zoo.sources.common import FACEBOOK, one_file, resnet_payload

_CLUSTER = FACEBOOK + "deepcluster/"
_SELA = "http://www.robots.ox.ac.uk/~vgg/research/self-label/asset/"
_NPID = (
    "https://frontiers.blob.core.windows.net/pretraining/checkpoints/pil_pretrained_models/"
    "lemniscate/"
)
_ROTNET = {"filters": (64, 192, 384, 256, 256)}

# DeepCluster and DeeperCluster: name, method, backbone, layout, path, data, metrics, settings.
_DEEPCLUSTER_ROWS = (
    (
        "deepcluster_alexnet",
        "deepcluster",
        "alexnet",
        "deepcluster_alexnet",
        "alexnet/checkpoint.pth.tar",
        "ImageNet-1K",
        {"linear": 37.88},
        {"sobel": True},
    ),
    (
        "deepcluster_vgg16",
        "deepcluster",
        "vgg16",
        "deepcluster_vgg16",
        "vgg16/checkpoint.pth.tar",
        "ImageNet-1K",
        {},
        {"sobel": True},
    ),
    (
        "deepercluster_vgg16",
        "deepercluster",
        "vgg16",
        "deepercluster_vgg16",
        "ours/ours.pth",
        "YFCC100M",
        {},
        {"sobel": True, "border": 1},
    ),
    (
        "deepcluster_vgg16_yfcc",
        "deepcluster",
        "vgg16",
        "deepercluster_vgg16",
        "deepcluster/deepcluster_flickr.pth",
        "YFCC100M",
        {},
        {"sobel": True, "border": 1},
    ),
    (
        "rotnet_vgg16_yfcc",
        "rotnet",
        "vgg16",
        "deepercluster_vgg16",
        "rotnet/rotnet_flickr.pth",
        "YFCC100M",
        {},
        {"border": 1},
    ),
    (
        "rotnet_vgg16",
        "rotnet",
        "vgg16",
        "deepercluster_vgg16",
        "rotnet/rotnet_imagenet.pth",
        "ImageNet-1K",
        {},
        {"border": 1},
    ),
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield from _sela()
    yield from _deepcluster()
    yield from _rotnet()
    yield from _npid()
    yield _local_aggregation()


def _sela() -> Iterator[Published]:
    for name, backbone, file, linear in (
        ("sela_rn18_1k", "resnet18", "resnet18-1k_pp", 53.3),
        ("sela_rn50_1k", "resnet50", "resnet50-1k_pp", 63.5),
        ("sela_rn50_10x3k", "resnet50", "resnet50-10x3k_pp", 68.8),
    ):
        yield Published(
            name,
            "sela",
            "sela",
            backbone,
            "torchvision_resnet",
            "mit",
            one_file(f"{_SELA}new_models/{file}.pth"),
            top_keys=("state_dict",),
            epochs=280,
            metrics={"linear": linear},
            payload=resnet_payload(backbone),
            notes=("The newer runs with stronger augmentation. The address is not encrypted.",),
        )
    # The ResNet-50 of the paper, resnet-10x3k.pth in the same archive, is no entry: the authors' code has two
    # networks for it, one of them with pre-activation blocks, which `ResNet` does not have; which one is not known.
    file = "alexnet-10x3k-wRot.pth"
    yield Published(
        "sela_v1_alexnet",
        "sela",
        "sela",
        "alexnet",
        "sela_alexnet",
        "mit",
        (File(file),),
        access="manual",
        how=f"Take {file} out of <{_SELA}pretrained.zip> and give it as `weights=`.",
        metrics={"linear": 43.8},
        notes=("The model of the paper.",),
        unverified=("which of the file's numbers belongs to which row of the paper",),
    )


def _deepcluster() -> Iterator[Published]:
    for name, method, backbone, layout, path, data, metrics, settings in _DEEPCLUSTER_ROWS:
        yield Published(
            name,
            method,
            "deepcluster",
            backbone,
            layout,
            "cc-by-nc-4.0",
            one_file(_CLUSTER + path),
            settings=settings,
            top_keys=("state_dict",),
            data=data,
            preprocessing="imagenet" if method == "rotnet" else "sobel",
            metrics=metrics,
            metrics_by="VISSL",
        )


def _rotnet() -> Iterator[Published]:
    base = "https://github.com/gidariss/FeatureLearningRotNet/releases/download/v1/"
    yield Published(
        "rotnet_alexnet",
        "rotnet",
        "rotnet",
        "alexnet",
        "rotnet_alexnet",
        "mit",
        (File("model_net_epoch50"),),
        settings=_ROTNET,
        top_keys=("network",),
        epochs=50,
        access="manual",
        how=f"Take the network's file out of <{base}ImageNet_RotNet_AlexNet.tar.gz> and give it as `weights=`.",
        metrics={"linear": 39.51},
        metrics_by="VISSL",
        unverified=("the resize to 256 pixels", "the names of the files in the archive"),
    )
    yield Published(
        "vissl_rotnet_alexnet",
        "rotnet",
        "vissl",
        "alexnet",
        "rotnet_alexnet",
        "mit",
        one_file(FACEBOOK + "vissl/model_zoo/rotnet_alexnet_model_net_epoch50.torch"),
        settings=_ROTNET,
        top_keys=("network", "classy_state_dict.base_model.model.trunk", ""),
        epochs=50,
        metrics={"linear": 39.51},
        metrics_by="VISSL",
        notes=("The authors' file, at VISSL's address.",),
        unverified=("where the tensors are in the file",),
    )


def _npid() -> Iterator[Published]:
    for name, backbone, file, metrics in (
        ("npid_rn50", "resnet50", "lemniscate_resnet50_update.pth", {"linear": 58.5}),
        ("npid_rn50_old", "resnet50", "lemniscate_resnet50.pth", {"nearest_neighbour": 46.8}),
        ("npid_rn18", "resnet18", "lemniscate_resnet18.pth", {"nearest_neighbour": 41.0}),
    ):
        yield Published(
            name,
            "npid",
            "npid",
            backbone,
            "torchvision_resnet",
            "not-stated",
            one_file(_NPID + file),
            top_keys=("state_dict",),
            prefixes=("module.", ""),
            metrics=metrics,
            payload=resnet_payload(backbone),
            notes=()
            if name == "npid_rn50"
            else ("The file also holds a memory bank of about 600 MB.",),
        )


def _local_aggregation() -> Published:
    archive = "http://visualmaster-models.s3.amazonaws.com/la_orig/checkpoint-1901710.tar"
    return Published(
        "local_aggregation_rn18",
        "local_aggregation",
        "local_aggregation",
        "resnet18_preact",
        "local_aggregation_tf1",
        "not-stated",
        (File("checkpoint-1901710.index"),),
        head="local_aggregation",
        container="tensorflow",
        access="manual",
        how=f"Unpack <{archive}> with `tar -xf` and give the file `checkpoint-1901710.index` out of it, with the data "
        "file beside it, as `weights=`.",
        preprocessing="local_aggregation",
        payload=4 * 11_186_624,  # counted in the network
        notes=(
            "A checkpoint from before the end of the training, the authors say.",
            "The authors' code saves a memory bank of about 660 MB with the network.",
        ),
        unverified=(
            "that the file has version 2 of the network, the default of the authors' code; another is refused",
            "the names of the files in the archive, and the scope of the names in the checkpoint",
            "whether the file has the memory bank",
        ),
    )
