"""A small server of the documented protocol of TensorFlow Serving, gRPC and REST, on 127.0.0.1.

`python server.py ROOT`; ROOT holds `models.config` and `batching.conf`, and stands for `/models`. Prints one
line of JSON with its ports when it is ready; ends when its standard input ends.
"""

import base64
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from servable import RequestError, load_models
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "INTERNAL": 500,
    "DEADLINE_EXCEEDED": 504,
}
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


def find(models, name, version=None):
    if name not in models or version not in (None, models[name].version):
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise RequestError("NOT_FOUND", f"Servable not found for request: {asked}")
    return models[name]


def metadata(servable):
    reply = get_model_metadata_pb2.GetModelMetadataResponse()
    reply.model_spec.name, reply.model_spec.version.value = servable.name, servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
    reply.metadata["signature_def"].Pack(signatures)
    return reply


def status(servable):
    reply = get_model_status_pb2.GetModelStatusResponse()
    reply.model_version_status.add(version=servable.version, state=AVAILABLE)
    return reply


class Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, models):
        self.models = models

    def answered(self, request, context, answer):
        spec = request.model_spec
        try:
            version = spec.version.value if spec.HasField("version") else None
            return answer(find(self.models, spec.name, version))
        except RequestError as error:
            context.abort(getattr(grpc.StatusCode, error.code), str(error))

    def Predict(self, request, context):
        def answer(servable):
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            outputs = servable.predict(request.model_spec.signature_name, inputs)
            reply = predict_pb2.PredictResponse()
            reply.model_spec.name, reply.model_spec.version.value = servable.name, servable.version
            for key, value in outputs.items():
                reply.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return reply

        return self.answered(request, context, answer)

    def GetModelMetadata(self, request, context):
        return self.answered(request, context, metadata)

    def GetModelStatus(self, request, context):
        return self.answered(request, context, status)


def decoded(value):
    """Returns a JSON value with `{"b64": ...}` replaced by its bytes."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, dict):
        return {key: decoded(item) for key, item in value.items()}
    return [decoded(item) for item in value] if isinstance(value, list) else value


def array(value, info):
    dtype = tf.as_dtype(info.dtype)
    try:
        return np.array(value, dtype=object if dtype == tf.string else dtype.as_numpy_dtype)
    except (TypeError, ValueError) as error:
        message = f"Failed to process the JSON value of type {dtype.name}: {error}"
        raise RequestError("INVALID_ARGUMENT", message) from error


def named(value, names):
    """Returns input name -> JSON value of one instance or of all inputs; a single input needs no name."""
    return value if isinstance(value, dict) else dict.fromkeys(list(names)[:1], value)


def predict_json(servable, body):
    try:
        request = decoded(json.loads(body))
    except ValueError as error:
        raise RequestError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict) or len({"instances", "inputs"} & set(request)) != 1:
        raise RequestError("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
    name = request.get("signature_name", "serving_default")
    signature = servable.signatures.get(name)
    if signature is None:
        raise RequestError("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found')
    rows = "instances" in request
    if rows:
        items = [named(item, signature.inputs) for item in request["instances"]]
        columns = {key: [item[key] for item in items] for key in (items[0] if items else ())}
    else:
        columns = named(request["inputs"], signature.inputs)
    known = {
        key: array(value, signature.inputs[key])
        for key, value in columns.items()
        if key in signature.inputs
    }
    outputs = servable.predict(name, known)
    values = {key: value.tolist() for key, value in outputs.items()}
    if not rows:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {
        "predictions": [
            dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)
        ]
    }


def make_handler(models):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, answer):
            code = 200
            try:
                content = answer()
            except RequestError as error:
                code, content = HTTP[error.code], {"error": str(error)}
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def route(self, ending):
            pattern = rf"/v1/models/([^/:]+)(?:/versions/(\d+))?{ending}"
            found = re.fullmatch(pattern, self.path)
            if not found:
                raise RequestError("NOT_FOUND", f"Malformed request: {self.command} {self.path}")
            return find(models, found[1], found[2] and int(found[2]))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(lambda: predict_json(self.route(":predict"), body))

        def do_GET(self):
            if self.path == "/runs":  # not of the protocol: what the batches were
                return self.reply(lambda: {name: one.runs for name, one in models.items()})
            if self.path.endswith("/metadata"):
                return self.reply(
                    lambda: json_format.MessageToJson(metadata(self.route("/metadata")))
                )
            return self.reply(lambda: json_format.MessageToJson(status(self.route(""))))

        def log_message(self, *_):
            pass

    return Handler


def main():
    models = load_models(Path(sys.argv[1]))
    server = grpc.server(
        ThreadPoolExecutor(1024), options=[("grpc.max_receive_message_length", -1)]
    )
    service = Service(models)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(models))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    warmed = {name: servable.warmed for name, servable in models.items()}
    print(json.dumps({"grpc": port, "rest": web.server_port, "warmed": warmed}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
