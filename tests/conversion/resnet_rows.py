"""Parity rows of the ResNet layouts."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from keras_ssl.backbones import ResNet
from keras_ssl.conversion.references import numpy_resnets
from keras_ssl.conversion.simclr import read_saved_model
from tests.conversion import fixtures
from tests.conversion.parity import Row

SIZES = (33, 64, (65, 48))
SWAV_STD = (0.228, 0.224, 0.225)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def torchvision(blocks=(2, 1), filters=(8, 6), width=1, bottleneck=True, swav=False):
    """A state dict with counters and a classifier; the reference is a PyTorch module that loads it strictly."""
    from keras_ssl.conversion.references import running, torch_resnets

    shapes = fixtures.torchvision_shapes(blocks, filters, width, bottleneck)
    tensors = fixtures.random_tensors(shapes)
    std = SWAV_STD if swav else (0.229, 0.224, 0.225)
    reference = torch_resnets.ResNet(blocks, filters, width, bottleneck, swav)
    running.load_strictly(reference, tensors)
    settings = {"blocks": blocks, "filters": filters, "width": width, "bottleneck": bottleneck}
    network = ResNet(**settings, std=std, image_size=32)
    prepared = functools.partial(running.normalized, mean=network.mean, std=std)
    expected = running.torch_run(reference, prepared)
    extra = fixtures.random_tensors({"fc.weight": (10, 8), "fc.bias": (10,)})
    return {**tensors, **extra}, network, expected


def colorization(blocks=(2, 1), filters=(8, 6), bottleneck=True):
    """As VISSL's, under the trunk's names without their prefix; the reference makes L of Lab by the formula."""
    from keras_ssl.conversion.references import colors, running, torch_resnets

    settings = {"blocks": blocks, "filters": filters, "bottleneck": bottleneck}
    tensors = fixtures.random_tensors(fixtures.torchvision_shapes(**settings, channels=1))
    reference = torch_resnets.ResNet(**settings, channels=1, last_stride=1)
    running.load_strictly(reference, tensors)
    network = ResNet(**settings, last_stride=1, lightness=True, image_size=32)
    return tensors, network, running.torch_run(reference, colors.lightness)


def simclr_network(blocks, filters, width=1, selective=False):
    return ResNet(
        blocks,
        filters=filters,
        width=width,
        padding="simclr",
        selective_kernels=selective,
        image_size=32,
        **PLAIN,
    )


def simclr_tf1(blocks=(2, 1), filters=(8, 6), width=1, selective=False):
    shapes = fixtures.simclr_shapes(blocks, filters, width, selective)
    tensors = fixtures.random_tensors(shapes)
    expected = functools.partial(numpy_resnets.simclr, tensors, blocks=blocks, selective=selective)
    given = {f"base_model/{key}": value for key, value in tensors.items()}
    given |= {f"{key}/Momentum": value + 1 for key, value in given.items() if "moving" not in key}
    return given, simclr_network(blocks, filters, width, selective), expected


def simclr_tf1_ema(blocks=(2, 1), filters=(8, 6)):
    """The average of the encoder, beside the encoder itself with other numbers."""
    given, network, expected = simclr_tf1(blocks, filters)
    average = {f"ema_model/{key}": value for key, value in given.items() if "Momentum" not in key}
    return average | {key: value + 1 for key, value in given.items()}, network, expected


def simclr_tf2(blocks=(2, 1), filters=(8, 6), selective=False):
    from tests.conversion import keras2_simclr

    model = keras2_simclr.filled_model(blocks, filters, selective)
    with tempfile.TemporaryDirectory() as folder:
        tensors = read_saved_model(keras2_simclr.write_checkpoint(model, Path(folder) / "model"))
    network = simclr_network(blocks, filters, selective=selective)
    return tensors, network, lambda images: {"features": keras2_simclr.features(model, images)}


def byol(blocks=(2, 1), filters=(8, 6), width=1, root="res_net50"):
    params, state = (
        fixtures.random_tensors(fixtures.flat(part))
        for part in fixtures.byol_shapes(blocks, filters, width, root)
    )
    online = {key.removeprefix(f"{root}/~/"): value for key, value in {**params, **state}.items()}
    network = ResNet(blocks, filters=filters, width=width, padding="same", image_size=32)

    def expected(images):
        return numpy_resnets.byol(online, (images - network.mean) / network.std, blocks)

    given = {f"online_params.{key}": value for key, value in params.items()}
    return (
        given | {f"online_state.{key}": value for key, value in state.items()},
        network,
        expected,
    )


def rows() -> list[Row]:
    numpy, torch, keras2 = "NumPy, float64", "PyTorch modules", "Keras 2 layers"
    needs = {torch: ("torch",), keras2: ("tf_keras",)}
    wide, sk = {"width": 2}, {"selective": True}
    plan = [
        ("torchvision_resnet", "basic blocks", torch, torchvision, {"bottleneck": False}),
        ("torchvision_resnet", "bottleneck", torch, torchvision, {}),
        ("torchvision_resnet", "SwAV, width 2", torch, torchvision, {**wide, "swav": True}),
        ("torchvision_resnet", "VICReg, width 4", torch, torchvision, {"width": 4}),
        ("vissl_resnet_colorization", "lightness", torch, colorization, {}),
        ("simclr_tf1", "plain", numpy, simclr_tf1, {}),
        ("simclr_tf1", "width 2", numpy, simclr_tf1, wide),
        ("simclr_tf1", "SK", numpy, simclr_tf1, sk),
        ("simclr_tf1", "SK, width 3", numpy, simclr_tf1, {**sk, "width": 3}),
        ("simclr_tf1_ema", "plain", numpy, simclr_tf1_ema, {}),
        ("simclr_tf2", "plain", keras2, simclr_tf2, {}),
        ("simclr_tf2", "SK", keras2, simclr_tf2, sk),
        ("byol_haiku", "plain", numpy, byol, {}),
        ("byol_haiku", "width 2", numpy, byol, {**wide, "root": "res_net200"}),
    ]
    whole = {"blocks": fixtures.RESNET50, "filters": fixtures.FILTERS}
    full = [
        ("torchvision_resnet", "ResNet-50", torch, torchvision, whole),
        ("vissl_resnet_colorization", "ResNet-50", torch, colorization, whole),
        ("simclr_tf1", "ResNet-50", numpy, simclr_tf1, whole),
        ("simclr_tf1", "ResNet-50, SK", numpy, simclr_tf1, {**whole, **sk}),
        ("byol_haiku", "ResNet-50", numpy, byol, whole),
    ]
    return [
        Row(
            name,
            layout,
            reference,
            functools.partial(make, **settings),
            sizes=SIZES if (small := settings.get("blocks") is None) else (96,),
            needs=needs.get(reference, ()),
            slow=not small or settings.get("width", 1) > 2 or name == "width 2",
        )
        for layout, name, reference, make, settings in [*plan, *full]
    ]
