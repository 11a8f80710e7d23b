"""Asks a TensorFlow Serving server for features over gRPC; needs `pip install tensorflow-serving-api`.

`python client_grpc.py localhost:8500 MODEL PICTURE...` prints one line of JSON for each picture.
"""

import json
import sys
from pathlib import Path

import grpc
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Client:
    """A connection to a server.

    Args:
        server: str. `host:8500`.
        model: str. Name of the model in `models.config`.
        timeout: float. Seconds for one call.
    """

    def __init__(self, server: str, model: str, timeout: float = 60.0) -> None:
        # Features of large batches pass gRPC's default limit of 4 MB for a reply.
        options = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(server, options=options)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model, self.timeout = model, timeout

    def embed(self, pictures: list[bytes]) -> list[list[float]]:
        """Returns the features of JPEG, PNG or BMP files, a list of floats for each."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = "bytes"
        images = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=pictures)
        images.tensor_shape.dim.add(size=len(pictures))
        request.inputs["image_bytes"].CopyFrom(images)
        features = self.stub.Predict(request, timeout=self.timeout).outputs["features"]
        width = features.tensor_shape.dim[1].size
        values = list(features.float_val) or _floats(features.tensor_content)
        return [values[start : start + width] for start in range(0, len(values), width)]


def _floats(content: bytes) -> list[float]:
    return memoryview(content).cast("f").tolist()


def main() -> int:
    """Prints the features of the pictures named on the command line."""
    if len(sys.argv) < 4:
        print(f"usage: {sys.argv[0]} HOST:8500 MODEL PICTURE...", file=sys.stderr)
        return 2
    server, model, *names = sys.argv[1:]
    try:
        rows = Client(server, model).embed([Path(name).read_bytes() for name in names])
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        details = (error.details() or "no answer").splitlines()[0]
        print(f"{server}: {error.code().name}: {details}", file=sys.stderr)
        return 1
    for name, features in zip(names, rows, strict=True):
        print(json.dumps({"picture": name, "features": features}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
