"""Many requests, bad ones among them, large pictures: right answers or clean errors, no growth."""

import io
import json
import os
import shutil
import signal
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
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.asking import b64, large_jpeg, post, refused  # noqa: E402

sys.path.append(str(Path(__file__).parent))
from servable import RequestError, load_models  # noqa: E402
from server import make_handler  # noqa: E402


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
