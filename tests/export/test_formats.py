"""The encoder as LiteRT, ONNX, PyTorch and safetensors files: the same features, and what is said when they are not."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, export
from keras_ssl.cli import main
from keras_ssl.export import agreement, litert
from keras_ssl.export.agreement import features_of, generated_images
from keras_ssl.export.formats import FORMATS, write_as

torch_needed = "PyTorch is not installed; the layouts themselves are tested with NumPy"


@pytest.fixture(scope="module")
def pictures():
    """The digits, 32 pixels: real images, of few kinds, far from noise."""
    from keras_ssl.data import load_digits

    images, _, _ = load_digits().read_batch(np.arange(64))
    return images.astype(np.float32) / 255.0


def largest_difference(expected, received):
    return float(np.abs(received - expected).max() / np.abs(expected).max())


def small_resnet():
    """A trained network's property that int8 needs: activations of one scale. Statistics are those of the digits."""
    network = backbones.build("resnet_mini", image_size=32, filters=(8, 8, 16, 16))
    from keras_ssl.data import load_digits

    images, _, _ = load_digits().read_batch(np.arange(64))
    for _ in range(15):
        network(tf.constant(images, tf.float32) / 255.0, training=True)
    return network


# LiteRT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", pytest.param("resnet", marks=pytest.mark.slow)])
def test_litert_in_float32(make_encoder, kind, pictures, tmp_path):
    encoder, path = make_encoder(kind), tmp_path / "deep" / "enc.tflite"
    lines = write_as("litert", encoder, path, image_size=None)
    received = export.LiteRTEncoder(path)(pictures[:5])
    assert largest_difference(features_of(encoder, pictures[:5]), received) < 1e-4
    assert "images float32 (1, 32, 32, 3) in [0, 1]" in lines[0]
    assert lines[1].startswith("cosine with the encoder in float32: mean 1.00000, smallest 1.0000")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_mini", "resnet_mini"])
@pytest.mark.parametrize("quantize, share, least", [("float16", 0.52, 0.999), ("int8", 0.3, 0.98)])
def test_litert_with_smaller_weights(name, quantize, share, least, pictures, tmp_path):
    """Weights of a half or a quarter, and a little that is no weight."""
    encoder = backbones.build(name, image_size=32)
    path = export.write_litert(encoder, tmp_path / "e.tflite", quantize=quantize)
    assert path.stat().st_size <= share * 4 * encoder.count_params()
    received = export.LiteRTEncoder(path)(pictures[:16])
    found = export.measure_agreement(features_of(encoder, pictures[:16]), received, quantize)
    assert found.smallest >= least and found.enough


def test_int8_is_better_with_ranges_from_such_images_than_from_others(pictures, tmp_path):
    """All activations have their range from calibration: from nearly black images it is far too small."""
    encoder, found = small_resnet(), {}
    for name, calibration in (("such", pictures[:32]), ("dark", 0.02 * pictures[:32])):
        path = tmp_path / f"{name}.tflite"
        export.write_litert(encoder, path, quantize="int8", calibration=calibration)
        received = export.LiteRTEncoder(path)(pictures[32:])
        expected = features_of(encoder, pictures[32:])
        found[name] = export.measure_agreement(expected, received, "int8")
    assert found["such"].enough and found["such"].mean > 0.99
    assert found["dark"].mean < found["such"].mean - 0.005


def test_calibration_images_are_cut_as_evaluation_cuts_them(tmp_path):
    from PIL import Image

    for number in range(30):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number:02d}.png")
    images = litert.calibration_images(str(tmp_path), 4, count=10)
    assert images.shape == (10, 4, 4, 3)
    np.testing.assert_allclose(images[:, 0, 0, 0] * 255, np.arange(0, 30, 3), atol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"quantize": "int4"}, "`quantize` must be one of"),
        ({"quantize": "int8", "calibration": np.zeros((2, 8, 8, 3))}, "must be images"),
        ({"image_size": 0}, "`image_size` must be a positive int"),
    ],
)
def test_litert_refuses(make_encoder, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.write_litert(make_encoder("resnet"), tmp_path / "x", **settings)
    assert not list(tmp_path.iterdir())


# ONNX --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_onnx(make_encoder, kind, pictures, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: keras_ssl[onnx]")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: keras_ssl[onnx]")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: keras_ssl[onnx]")
    encoder, path = make_encoder(kind), tmp_path / "enc.onnx"
    lines = write_as("onnx", encoder, path, image_size=None, facts={"method": "simclr"})
    run = export.ONNXEncoder(path)
    for count in (1, 5):
        expected = features_of(encoder, pictures[:count])
        assert largest_difference(expected, run(pictures[:count])) < 1e-4
    model = onnx.load(str(path))
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 17
    (images,), (features,) = model.graph.input, model.graph.output
    assert (images.name, features.name) == ("images", "features")
    for value in (images, features):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["keras_ssl"])
    assert facts["image_size"] == 32 and facts["source"] == {"method": "simclr"}
    assert "operator set 17" in lines[0] and "smallest 1.0000" in lines[1]


TRANSFORMERS = {
    "vit": lambda: backbones.ViT(
        24, 2, 3, patch_size=8, image_size=32, positions="rope", ffn="swiglu", num_registers=2,
        layer_scale=0.5,
    ),
    "swin": lambda: backbones.Swin(8, (2, 1), (1, 2), window_size=3, image_size=32),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_every_part_of_a_transformer_is_converted(kind, pictures, tmp_path):
    """Registers, rotary positions, gated perceptrons, branch factors; shifted windows of padded, merged maps."""
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: keras_ssl[onnx]")
    encoder = TRANSFORMERS[kind]()
    generator = np.random.default_rng(0)
    for variable in encoder.trainable_variables:
        variable.assign(variable.numpy() + 0.2 * generator.standard_normal(variable.shape))
    expected = features_of(encoder, pictures[:3])
    export.write_onnx(encoder, tmp_path / "e.onnx")
    export.write_litert(encoder, tmp_path / "e.tflite")
    for run in (
        export.ONNXEncoder(tmp_path / "e.onnx"),
        export.LiteRTEncoder(tmp_path / "e.tflite"),
    ):
        assert largest_difference(expected, run(pictures[:3])) < 1e-4


@pytest.mark.slow
def test_onnx_and_litert_of_a_saved_model(make_encoder, pictures, tmp_path):
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed: keras_ssl[onnx]")
    encoder = make_encoder("vit")
    loaded = export.load_encoder(export.export_encoder(encoder, tmp_path / "saved"))
    expected = features_of(encoder, pictures[:3])
    export.write_onnx(loaded, tmp_path / "e.onnx")
    export.write_litert(loaded, tmp_path / "e.tflite")
    for run in (
        export.ONNXEncoder(tmp_path / "e.onnx"),
        export.LiteRTEncoder(tmp_path / "e.tflite"),
    ):
        assert largest_difference(expected, run(pictures[:3])) < 1e-4


@pytest.mark.parametrize("package", ["tf2onnx.convert", "onnx.checker"])
def test_onnx_without_its_packages(make_encoder, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'keras_ssl\[onnx\]'"):
        export.write_onnx(make_encoder("resnet"), tmp_path / "x.onnx")


# PyTorch -----------------------------------------------------------------------------------------------------


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


# agreement and command ---------------------------------------------------------------------------------------


def test_agreement_by_hand():
    """Cosines: of (1, 0) with (2, 0) 1; with (1, 1) 0.7071; NaN counts as -1; zeros agree with zeros."""
    a = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], float)
    b = np.array([[2, 0], [1, 1], [np.nan, 0], [0, 0]], float)
    found = export.measure_agreement(a, b, "int8")
    assert found.smallest == -1.0 and found.mean == pytest.approx((1 + 0.5**0.5 - 1 + 1) / 4)
    assert not found.enough and found.line("images").startswith("Warning: ")
    near = export.measure_agreement(a[:2], np.array([[1, 0.1], [1, 0]]), "int8")
    assert near.enough and not export.Agreement(*near[:3], "float32").enough
    with pytest.raises(ValueError, match="Features of the same images"):
        export.measure_agreement(a, b[:2])


def test_generated_images_are_always_the_same_and_use_the_range():
    images = generated_images(20, 3)
    assert images.shape == (3, 20, 20, 3) and images.dtype == np.float32
    np.testing.assert_array_equal(images, generated_images(20, 3))
    assert images.min() >= 0 and images.max() <= 1 and 0.1 < images.std() < 0.3


def test_too_large_for_one_file(monkeypatch, make_encoder, tmp_path):
    from keras_ssl.export import traced

    monkeypatch.setattr(traced, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="less than 2 GB, the most that one LiteRT file can hold"):
        export.write_litert(make_encoder("resnet"), tmp_path / "x")


def test_the_command_warns_of_a_file_that_lost_too_much(
    tmp_path, capsys, monkeypatch, make_encoder
):
    """The writers are tested above; here the file is one whose features are noise."""
    make_encoder("resnet").save(tmp_path / "encoder.keras")
    monkeypatch.setattr(litert, "_convert", lambda *_: b"noise")
    noise = np.random.default_rng(0).standard_normal((8, 16))
    monkeypatch.setattr(litert, "LiteRTEncoder", lambda path: lambda images: noise)
    command = ["export", str(tmp_path / "encoder.keras"), "--to", str(tmp_path / "e.tflite")]
    assert main([*command, "--format", "litert", "--quantize", "float16"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "e.tflite").read_bytes() == b"noise"
    assert "Warning: cosine with the encoder" in printed
    assert "at least 0.999 was expected for float16" in printed
    for count, own in ((5, True), (10, False)):
        images = np.zeros((count, 32, 32, 3), np.float32)
        monkeypatch.setattr(litert, "calibration_images", lambda *_, images=images: images)
        noise = np.random.default_rng(0).standard_normal((5 if own else 2, 16))
        monkeypatch.setattr(litert, "LiteRTEncoder", lambda path, noise=noise: lambda _: noise)
        flags = ["--format", "litert", "--quantize", "int8", "--calibration", "photos"]
        assert main([*command, *flags]) == 0
        assert ("the same that the ranges are from" in capsys.readouterr().out) == own
    for wrong in (
        ["--format", "onnx", "--quantize", "int8"],
        ["--format", "onnx", "--calibration", "x"],
    ):
        with pytest.raises(SystemExit) as end:
            main([*command[:-1], str(tmp_path / "e.onnx"), *wrong])
        assert end.value.code == 2 and "only. Received" in capsys.readouterr().err


def test_every_format_names_a_writer():
    import importlib

    for entry in FORMATS.values():
        module, _, function = entry.writer.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert agreement.SMALLEST.keys() == set(litert.QUANTIZE)


def test_the_table_of_the_page_is_the_one_of_the_numbers():
    import importlib.util
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("formats", root / "benchmarks" / "formats.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    stored = json.loads((root / "docs" / "benchmarks" / "formats.json").read_text())
    page = (root / "docs" / "export.md").read_text(encoding="utf-8")
    assert benchmark.table(stored["rows"]) in page
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(FORMATS) <= named
