"""Encoders as files of PyTorch and safetensors, under the names of the publishers' layouts."""

import json

import keras
import numpy as np
import pytest

from keras_ssl import backbones, export
from keras_ssl.export.agreement import features_of
from keras_ssl.export.formats import write_as
from tests.export.differences import largest_difference

torch_needed = "PyTorch is not installed; the layouts themselves are tested with NumPy"


def encoder_for_torch(kind):
    if kind == "resnet":
        network = backbones.ResNet((1, 1, 1), filters=(4, 6, 8), image_size=47)
    else:
        network = backbones.ViT(
            12, 2, 3, patch_size=8, image_size=40, mean=(0.5,) * 3, std=(0.25,) * 3
        )
    generator = np.random.default_rng(0)
    for variable in network.variables:
        scale = 1.0 if "moving_variance" in variable.path else 0.3
        start = np.ones if "gamma" in variable.path else np.zeros
        noise = scale * generator.standard_normal(variable.shape)
        variable.assign(np.abs(noise) + 0.5 if scale == 1.0 else start(variable.shape) + noise)
    return network


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_torch_loads_the_file_strictly(kind, format, tmp_path):
    torch = pytest.importorskip("torch", reason=torch_needed)
    from keras_ssl.conversion.references import torch_resnets, torch_vits

    encoder, path = encoder_for_torch(kind), tmp_path / "encoder.bin"
    lines = write_as(format, encoder, path, image_size=None, facts={"method": "dino"})
    if format == "torch":
        stored = torch.load(path, weights_only=True)
        tensors, facts = stored["state_dict"], stored["keras_ssl"]
    else:
        safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
        tensors = pytest.importorskip("safetensors.torch").load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["keras_ssl"])
    modules = {
        "resnet": lambda: torch_resnets.ResNet((1, 1, 1), (4, 6, 8)),
        "vit": lambda: torch_vits.ViT(torch_vits.Form(12, 2, 3, 48, 8, 5)),
    }
    module = modules[kind]()
    module.load_state_dict(tensors, strict=True)
    assert set(tensors) == set(module.state_dict())
    size = encoder.image_size
    images = np.random.default_rng(1).random((3, size, size, 3)).astype(np.float32)
    outside = (images - np.array(facts["mean"])) / np.array(facts["std"])  # normalized outside
    with torch.no_grad():
        x = torch.tensor(outside.transpose(0, 3, 1, 2), dtype=torch.float32)
        received = module.eval()(x)["features"].numpy()
    assert largest_difference(features_of(encoder, images), received) < 1e-4
    assert facts["source"] == {"method": "dino"} and facts["image_size"] == size
    assert facts["layout"] in lines[0] and "mean (" in lines[1]


def test_layouts_by_the_form_of_the_network():
    from keras_ssl.export.torch import layout_name

    tiny = {"patch_size": 8, "image_size": 16}
    assert layout_name(backbones.ViT(8, 1, 2, **tiny)) == "timm_vit"
    assert layout_name(backbones.Swin(8, (1, 1), (1, 2), image_size=16)) == "swin"
    assert layout_name(backbones.ViT(8, 1, 2, num_registers=2, **tiny)) == "dinov2"
    assert layout_name(backbones.ViT(8, 1, 2, positions="rope", **tiny)) == "dinov3"


def test_other_networks_have_no_names_in_pytorch(tmp_path):
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="Expected a ResNet, a ViT or a Swin of this library"):
        export.write_for_torch(network, tmp_path / "x")
    with pytest.raises(ValueError, match="`container` must be one of"):
        export.write_for_torch(encoder_for_torch("vit"), tmp_path / "x", container="zip")
