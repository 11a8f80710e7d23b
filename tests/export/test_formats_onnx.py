"""Encoders as ONNX files, run by ONNX Runtime."""

import json
import sys

import numpy as np
import pytest

from keras_ssl import backbones, export
from keras_ssl.export.agreement import features_of
from keras_ssl.export.formats import write_as
from tests.export.differences import largest_difference


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
