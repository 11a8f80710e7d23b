"""Warm-up requests that TensorFlow Serving replays when it loads a model, written without its packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
BATCH_SIZES = (1, 8)
MAX_RECORDS = 1000  # the server ignores files with more

# Field numbers of tensorflow_serving/apis/{prediction_log,predict,model}.proto.
_PREDICT_LOG = 6  # of PredictionLog
_REQUEST = 1  # of PredictLog
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest
_NAME, _SIGNATURE_NAME = 1, 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of an entry of a map


def write_warmup(
    directory: Path,
    signatures: Mapping[str, Mapping[str, tf.TensorSpec]],
    *,
    image_size: int,
    model: str,
    batch_sizes: Iterable[int] = BATCH_SIZES,
) -> Path:
    """Writes one request for each signature and batch size.

    The images are one gray value, stored once however large the batch; `"bytes"` gets a JPEG of `image_size`.

    Args:
        directory: path. Folder of the SavedModel.
        signatures: dict of signature name to its inputs, float images `(batch, height, width, 3)` or strings
            `(batch,)`.
        image_size: int. Side where a signature leaves it open.
        model: str. Name under which it will be served.
        batch_sizes: ints. Defaults to `(1, 8)`.

    Returns:
        Path. `assets.extra/tf_serving_warmup_requests`, a TFRecord file of `PredictionLog`.

    Raises:
        ValueError: If that makes more than 1000 requests.
    """
    requests = [
        predict_request(model, name, _inputs(inputs, size, image_size))
        for name, inputs in sorted(signatures.items())
        for size in batch_sizes
    ]
    if len(requests) > MAX_RECORDS:
        raise ValueError(
            f"At most {MAX_RECORDS} warm-up requests were expected. Received: {len(requests)}"
        )
    path = directory / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(_field(_PREDICT_LOG, _field(_REQUEST, request)))
    return path


def predict_request(model: str, signature: str, inputs: Mapping[str, bytes]) -> bytes:
    """Returns a serialized `PredictRequest`.

    Args:
        model: str. Name of the model.
        signature: str.
        inputs: dict of input name to serialized `TensorProto`.

    Returns:
        bytes.
    """
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    entries = [_field(_KEY, key.encode()) + _field(_VALUE, inputs[key]) for key in sorted(inputs)]
    return _field(_MODEL_SPEC, spec) + b"".join(_field(_INPUTS, entry) for entry in entries)


def model_name(directory: Path) -> str:
    """Returns the name that a server gives the model of a folder: `swav` for `swav` and for `swav/3`."""
    return directory.parent.name if directory.name.isdigit() else directory.name


def _inputs(specs: Mapping[str, tf.TensorSpec], batch: int, image_size: int) -> dict[str, bytes]:
    inputs = {}
    for key, spec in specs.items():
        if spec.dtype == tf.string:
            gray = np.full((image_size, image_size, 3), 128, np.uint8)
            proto = tf.make_tensor_proto([tf.io.encode_jpeg(gray).numpy()] * batch)
        else:
            sides = [image_size if side is None else side for side in spec.shape[1:]]
            proto = tf.make_tensor_proto(0.5, spec.dtype, [batch, *sides])  # one value for all
        inputs[key] = proto.SerializeToString()
    return inputs


def _field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field: key, length, content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Returns a number in groups of seven bits, lowest first; all but the last have the high bit set."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
