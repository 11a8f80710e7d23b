"""A folder of served models and a running server of it, shared by the tests of this folder."""

import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.small_network import make_small_network

HERE = Path(__file__).parent


class Running(NamedTuple):
    process: subprocess.Popen
    grpc: int
    rest: int
    warmed: dict

    def memory_mb(self, field="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    def url(self, path):
        return f"http://127.0.0.1:{self.rest}{path}"

    def runs(self, model):
        """Returns [signature, rows of the batch that was run, rows asked for] of each run so far."""
        with urllib.request.urlopen(self.url("/runs"), timeout=60) as reply:
            return json.load(reply)[model]


@pytest.fixture(scope="session")
def tiny_encoder():
    return make_small_network()


@pytest.fixture(scope="session")
def root(tiny_encoder, tmp_path_factory):
    """Two models, one of them with two versions, of which a server takes the higher."""
    from keras_ssl import export
    from keras_ssl.export.serving import write_configs

    root = tmp_path_factory.mktemp("serving") / "all models"
    export.export_version(tiny_encoder, root / "swav", 2, image_size=32, crop_ratio=0.8)
    (root / "swav" / "1").mkdir()  # empty: a server that looked there would fail
    shutil.copytree(root / "swav" / "2", root / "dino" / "7")
    write_configs(root / "dino")
    return root


@pytest.fixture(scope="session")
def server(root, subprocess_env_session):
    pytest.importorskip("grpc", reason="the test server needs grpcio")
    pytest.importorskip("tensorflow_serving", reason="the test server needs tensorflow-serving-api")
    process = subprocess.Popen(
        [sys.executable, "-P", str(HERE / "server.py"), str(root)],
        env=subprocess_env_session,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stdout.readline()
        assert ready, f"the server ended with {process.wait(60)}"
        yield Running(process, **json.loads(ready))
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def channel(server):
    import grpc

    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options=options) as channel:
        yield channel


@pytest.fixture(scope="session")
def predict(channel):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

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


@pytest.fixture(scope="session")
def subprocess_env_session():
    """Environment of a process that is given this interpreter's packages and nothing of this checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def encode(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **settings)
    return buffer.getvalue()


def smooth(height, width, seed=0):
    """A picture without detail finer than a fifth of its side."""
    coarse = np.random.default_rng(seed).integers(40, 215, (5, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def pictures(tiny_encoder):
    """Files of many sizes and kinds, and the features that the encoder gives for the evaluation view of each."""
    import tensorflow as tf

    from keras_ssl import views

    kinds = [("JPEG", {"quality": 95}), ("PNG", {}), ("BMP", {})]
    files, shown = [], []
    for number in range(12):
        kind, settings = kinds[number % 3]
        file = encode(smooth(33 + 7 * number, 90 - 4 * number, number), kind, **settings)
        files.append(file)
        image = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        shown.append(views.center_crop(image[None], size=32, crop_ratio=0.8)[0])
    return files, tiny_encoder(tf.stack(shown))["features"].numpy()
