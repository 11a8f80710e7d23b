"""Raw requests to a server that runs the exported folder through TensorFlow's C++ session."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

grpc = pytest.importorskip("grpc", reason="the clients need grpcio")
apis = pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from tests.serving.asking import b64, post, refused  # noqa: E402


def test_models_are_those_of_the_config_and_are_warmed_up(server):
    """Three signatures at two batch sizes; the server parses models.config and batching.conf by the real protos."""
    assert server.warmed == {"swav": 6, "dino": 6}


def test_status_and_metadata(server, channel):
    service = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "swav"
    [found] = service.GetModelStatus(request, timeout=60).model_version_status
    assert (found.version, found.state) == (2, found.AVAILABLE)
    with urllib.request.urlopen(server.url("/v1/models/dino"), timeout=60) as reply:
        [rest] = json.load(reply)["model_version_status"]
    assert (rest["version"], rest["state"]) == ("7", "AVAILABLE")

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "swav"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request, timeout=60).metadata["signature_def"].Unpack(signatures)
    with urllib.request.urlopen(server.url("/v1/models/swav/metadata"), timeout=60) as reply:
        rest = json.load(reply)["metadata"]["signature_def"]["signatureDef"]
    names = {"serving_default", "bytes", "feature_map"}
    assert names == set(rest) == set(signatures.signature_def)
    images = signatures.signature_def["serving_default"].inputs["images"]
    assert [dim.size for dim in images.tensor_shape.dim] == [-1, -1, -1, 3]
    features = signatures.signature_def["bytes"].outputs["features"]
    assert [dim.size for dim in features.tensor_shape.dim] == [-1, 16]
    assert list(signatures.signature_def["bytes"].inputs) == ["image_bytes"]


def test_rows_and_columns_give_what_the_encoder_gives(server, predict, tiny_encoder):
    images = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    expected = tiny_encoder(images)
    got = predict(images=images)["features"]
    np.testing.assert_allclose(got, expected["features"], rtol=1e-4, atol=1e-5)
    values = images.tolist()
    for body in (
        {"instances": values},
        {"instances": [{"images": value} for value in values]},
        {"signature_name": "serving_default", "instances": values},
    ):
        np.testing.assert_allclose(post(server, body)["predictions"], got, rtol=1e-4, atol=1e-5)
    for body in ({"inputs": values}, {"inputs": {"images": values}}):
        np.testing.assert_allclose(post(server, body)["outputs"], got, rtol=1e-4, atol=1e-5)
    body = {"signature_name": "feature_map", "instances": values}
    maps = np.array(post(server, body, model="dino")["predictions"])
    np.testing.assert_allclose(maps, expected["map"], rtol=1e-4, atol=1e-5)


def test_pictures_by_rest_and_grpc(server, predict, pictures):
    files, expected = pictures
    got = predict("bytes", image_bytes=files)["features"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    rows = {"signature_name": "bytes", "instances": [b64(file) for file in files]}
    named = {"signature_name": "bytes", "instances": [{"image_bytes": b64(f)} for f in files]}
    for body in (rows, named):
        np.testing.assert_allclose(post(server, body)["predictions"], got, rtol=1e-4, atol=1e-5)
    body = {"signature_name": "bytes", "inputs": [b64(file) for file in files]}
    np.testing.assert_allclose(post(server, body)["outputs"], got, rtol=1e-4, atol=1e-5)


def test_wrong_requests_are_refused(server, predict):
    image = np.zeros((1, 32, 32, 3), np.float32)
    assert "not found" in refused(lambda: predict(model="moco", images=image), "NOT_FOUND")
    assert "not found" in refused(lambda: predict(version=9, images=image), "NOT_FOUND")
    assert "not found in signature" in refused(lambda: predict("train", images=image))
    assert "required: ['images']" in refused(lambda: predict(pixels=image))
    assert refused(lambda: predict(images=np.zeros((1, 32, 32, 4), np.float32)))
    assert post(server, {"instances": []}, model="moco", code=404)["error"]
    for body in (
        b"{",
        {"rows": []},
        {"instances": ["x"]},
        {"signature_name": "x", "instances": [0]},
    ):
        assert post(server, body, code=400)["error"]
