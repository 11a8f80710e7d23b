"""The encoder as LiteRT, ONNX, PyTorch and safetensors files: the same features, and what is said when they are not."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, export
from keras_ssl.cli import main
from keras_ssl.export import agreement, litert
from keras_ssl.export.agreement import features_of, generated_images
from keras_ssl.export.formats import FORMATS, write_as
from tests.export.differences import largest_difference


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
