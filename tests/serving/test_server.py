"""Clients and raw requests against a server that runs the exported folder through TensorFlow's C++ session."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

grpc = pytest.importorskip("grpc", reason="the clients need grpcio")
apis = pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

sys.path.append(str(Path(__file__).parent))
from servable import RequestError, load_models  # noqa: E402
from server import make_handler  # noqa: E402

CLIENTS = Path(__file__).resolve().parents[2] / "export" / "serving"


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options=options) as channel:
        yield channel


@pytest.fixture(scope="module")
def predict(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def predict(signature="", model="swav", version=None, **inputs):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        outputs = stub.Predict(request, timeout=120).outputs
        return {key: tf.make_ndarray(value) for key, value in outputs.items()}

    return predict


def refused(call, code="INVALID_ARGUMENT"):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == code
    return caught.value.details()


def post(server, body, model="swav", code=200):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.url(f"/v1/models/{model}:predict"), body)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            found, content = reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        found, content = error.code, json.load(error)
    assert found == code, content
    return content


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def large_jpeg(**settings):
    """50 megapixels of a smooth picture."""
    coarse = np.random.default_rng(0).integers(40, 215, (5, 5, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(coarse).resize((8000, 6250), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=80, **settings)
    return buffer.getvalue(), image


# The protocol ------------------------------------------------------------------------------------------------


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


# The clients that users get ----------------------------------------------------------------------------------


def run(*command, env):
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def check_client(command, pictures, folder, env):
    """Asks for all pictures, then for a file that is none; returns what the second call wrote to stderr."""
    files, expected = pictures
    paths = [folder / f"{number}.picture" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    (folder / "no picture.jpg").write_text("hello")
    done = run(*command, *map(str, paths), env=env)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["picture"] for line in lines] == list(map(str, paths))
    got = [line["features"] for line in lines]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    done = run(*command, str(folder / "no picture.jpg"), env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "5 bytes of something else" in done.stderr.splitlines()[-1]


def test_rest_client(server, pictures, tmp_path, subprocess_env_session):
    client = (sys.executable, "-P", str(CLIENTS / "client_rest.py"))
    command = (*client, server.url(""), "swav")
    check_client(command, pictures, tmp_path, subprocess_env_session)
    for words, code, sentence in (
        (command, 2, "usage: "),
        ((*command, str(tmp_path / "missing.jpg")), 1, "No such file"),
        ((*command[:-1], "moco", str(tmp_path / "0.picture")), 1, "404: Servable not found"),
        ((*client, "http://127.0.0.1:1", "swav", str(tmp_path / "0.picture")), 1, "refused"),
    ):
        done = run(*words, env=subprocess_env_session)
        [line] = done.stderr.splitlines()
        assert done.returncode == code and sentence in line


@pytest.mark.slow  # imports TensorFlow twice
def test_grpc_client(server, pictures, tmp_path, subprocess_env_session):
    client = (sys.executable, "-P", str(CLIENTS / "client_grpc.py"))
    command = (*client, f"127.0.0.1:{server.grpc}", "swav")
    check_client(command, pictures, tmp_path, subprocess_env_session)


def test_curl_client_and_the_printed_command(server, pictures, tmp_path, subprocess_env_session):
    from keras_ssl.export import serving

    files, expected = pictures
    (tmp_path / "picture.jpg").write_bytes(files[0])
    command = ("sh", str(CLIENTS / "client.sh"), server.url(""), "swav")
    done = run(*command, str(tmp_path / "picture.jpg"), env=subprocess_env_session)
    assert done.returncode == 0, done.stderr
    [got] = json.loads(done.stdout)["predictions"]
    np.testing.assert_allclose(got, expected[0], rtol=1e-3, atol=1e-3)
    (tmp_path / "text.jpg").write_text("hello")
    done = run(*command, str(tmp_path / "text.jpg"), env=subprocess_env_session)
    assert done.returncode != 0 and "5 bytes of something else" in done.stdout
    assert run("sh", str(CLIENTS / "client.sh"), env=subprocess_env_session).returncode == 2

    printed = serving.curl_command("swav").replace("localhost:8501", f"127.0.0.1:{server.rest}")
    done = subprocess.run(
        ["sh", "-c", printed], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    np.testing.assert_allclose(json.loads(done.stdout)["predictions"], [got], rtol=1e-5)


# Load --------------------------------------------------------------------------------------------------------


def test_a_thousand_requests_in_flight_get_their_own_answers(server, channel, predict, pictures):
    """All are sent before the first is answered; 1 to 3 rows of both signatures are joined, padded and split back."""
    files, expected = pictures
    images = np.random.default_rng(1).random((12, 32, 32, 3)).astype(np.float32)
    alone = predict(images=images)["features"]
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    requests, wanted = [], []
    for number in range(1000):
        rows = [(number + offset) % len(files) for offset in range(1 + number % 3)]
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "swav"
        if number % 4:
            request.inputs["images"].CopyFrom(tf.make_tensor_proto(images[rows]))
        else:
            request.model_spec.signature_name = "bytes"
            given = [files[row] for row in rows]
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(given))
        requests.append(request)
        wanted.append((alone if number % 4 else expected)[rows])

    def ask_all():
        os.kill(server.process.pid, signal.SIGSTOP)  # so that none can be answered yet
        try:
            calls = [stub.Predict.future(request, timeout=120) for request in requests]
            assert not any(call.done() for call in calls)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        got = [tf.make_ndarray(call.result().outputs["features"]) for call in calls]
        for found, right in zip(got, wanted, strict=True):
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right, atol=2e-3)

    ask_all()  # threads, pools and arenas reach their size
    done, before = len(server.runs("swav")), server.memory_mb()
    ask_all()
    growth = server.memory_mb() - before
    assert growth < 48, f"{growth:.0f} MB"
    runs = server.runs("swav")[done:]
    sizes = {size for _, size, _ in runs}
    assert sizes <= {1, 2, 4, 8, 16, 32, 64} and max(sizes) >= 4
    assert sum(rows for _, _, rows in runs) == sum(map(len, wanted))
    assert any(size > rows for _, size, rows in runs), "nothing was padded"
    assert len(runs) < 800, "requests were hardly batched"


@pytest.fixture(scope="module")
def patient(root, tmp_path_factory):
    """Models that wait half a second for other requests to join a batch."""
    copy = tmp_path_factory.mktemp("patient") / "models"
    shutil.copytree(root, copy)
    text = (copy / "batching.conf").read_text()
    assert "batch_timeout_micros { value: 2000 }" in text
    (copy / "batching.conf").write_text(text.replace("2000", "500000"))
    return load_models(copy)


def together(*calls):
    """Runs calls in threads and returns the answer or the error of each."""

    def answer(call):
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(answer, calls))


def test_a_bad_picture_fails_the_whole_batch_cleanly(patient, root, pictures):
    """With batching the callers that were joined with it get its sentence; without, they get their features."""
    files, expected = pictures

    def ask(servable, file):
        return lambda: servable.predict("bytes", {"image_bytes": np.array([file], object)})

    given = [files[0], b"no picture", files[1]]
    swav = patient["swav"]
    for answer in together(*(ask(swav, file) for file in given)):
        assert isinstance(answer, RequestError) and answer.code == "INVALID_ARGUMENT"
        assert "of the request, 10 bytes of something else" in str(answer)
    alone = load_models(root, batched=False)["swav"]
    for servable in (swav, alone):
        found = servable.predict("bytes", {"image_bytes": np.array(files, object)})["features"]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    good, bad, other = together(*(ask(alone, file) for file in given))
    assert isinstance(bad, RequestError)
    np.testing.assert_allclose(good["features"], expected[:1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(other["features"], expected[1:2], rtol=1e-3, atol=1e-3)


def test_float_images_of_two_sizes_fail_when_they_are_joined(patient):
    images = [np.zeros((1, side, side, 3), np.float32) for side in (32, 32, 48)]
    web = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(patient))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}/v1/models/swav:predict"

    def rest():
        body = json.dumps({"instances": images[1].tolist()}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as reply:
            return json.load(reply)

    def direct(value):
        return lambda: patient["swav"].predict("", {"images": value})

    try:
        first, by_rest, last = together(direct(images[0]), rest, direct(images[2]))
    finally:
        web.shutdown()
        web.server_close()
    for answer in (first, last):
        assert isinstance(answer, RequestError) and answer.code == "FAILED_PRECONDITION"
        assert "have different shapes and padding is turned off" in str(answer)
    assert by_rest.code == 400 and "padding is turned off" in json.load(by_rest)["error"]
    assert patient["swav"].predict("", {"images": images[2]})["features"].shape == (1, 16)


def test_what_is_no_picture_is_refused_and_the_server_goes_on(server, predict, pictures):
    files, expected = pictures
    for bad, sentence in (
        (b"", "image 1 of the request, 0 bytes of something else"),
        (b"no picture", "image 1 of the request, 10 bytes of something else"),
        (b"\xff\xd8\xff\xe0", "Invalid JPEG data"),
        (files[0][: len(files[0]) // 2], "Invalid JPEG data"),
        (files[1][: len(files[1]) // 2], "Invalid PNG data"),
    ):
        assert sentence in refused(lambda bad=bad: predict("bytes", image_bytes=[files[2], bad]))
    body = {"signature_name": "bytes", "instances": [b64(b"")]}
    assert "0 bytes of something else" in post(server, body, code=400)["error"]
    got = predict("bytes", image_bytes=files)["features"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_fifty_megapixels_need_little_memory(server, predict, tiny_encoder):
    """A JPEG is decoded at an eighth; other formats are refused by their header, before they are decoded."""
    from keras_ssl import views

    jpeg, image = large_jpeg()
    small = np.asarray(image.reduce(10))
    view = views.center_crop(small[None], size=32, crop_ratio=0.8)
    expected = tiny_encoder(view)["features"].numpy()
    png = io.BytesIO()
    Image.new("RGB", (8000, 6250)).save(png, "PNG", compress_level=1)
    before = server.memory_mb()
    for _ in range(5):
        got = predict("bytes", image_bytes=[jpeg])["features"]
        sentence = refused(lambda: predict("bytes", image_bytes=[png.getvalue()]))
    np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)
    assert "at most 32 * 2^20 pixels. Received: image 0 of the request, 8000 x 6250" in sentence
    assert server.memory_mb() - before < 48
    whole = 8000 * 6250 * 3 / 2**20
    assert server.memory_mb("VmHWM") - before < whole, "the picture was decoded whole"

    # A progressive one keeps its coefficients, 1.5 of 2 bytes for each pixel, while it is decoded; then nothing.
    progressive, _ = large_jpeg(progressive=True)
    got = predict("bytes", image_bytes=[progressive])["features"]
    np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)
    assert server.memory_mb("VmHWM") - before < 1.5 * whole
    assert server.memory_mb() - before < 48
