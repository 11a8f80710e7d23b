"""What leaves the house: an encoder as SavedModel or in another format, and the way back into Keras.

`FORMATS` names the formats; it does not import TensorFlow, the rest does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_ssl.export.formats import FORMATS, Format, write_as

if TYPE_CHECKING:
    from keras_ssl.export.agreement import Agreement, measure_agreement
    from keras_ssl.export.layer import SavedModelEncoder, load_encoder
    from keras_ssl.export.litert import LiteRTEncoder, write_litert
    from keras_ssl.export.onnx import ONNXEncoder, write_onnx
    from keras_ssl.export.preset import from_preset, write_preset
    from keras_ssl.export.saved_model import export_encoder, float32_copy, read_metadata
    from keras_ssl.export.serving import export_version
    from keras_ssl.export.torch import torch_tensors, write_for_torch

__all__ = [
    "FORMATS",
    "Agreement",
    "Format",
    "LiteRTEncoder",
    "ONNXEncoder",
    "SavedModelEncoder",
    "export_encoder",
    "export_version",
    "float32_copy",
    "from_preset",
    "load_encoder",
    "measure_agreement",
    "read_metadata",
    "torch_tensors",
    "write_as",
    "write_for_torch",
    "write_litert",
    "write_onnx",
    "write_preset",
]

_NEED_TENSORFLOW = {
    "Agreement": "agreement",
    "LiteRTEncoder": "litert",
    "ONNXEncoder": "onnx",
    "SavedModelEncoder": "layer",
    "export_encoder": "saved_model",
    "export_version": "serving",
    "float32_copy": "saved_model",
    "from_preset": "preset",
    "load_encoder": "layer",
    "measure_agreement": "agreement",
    "read_metadata": "saved_model",
    "torch_tensors": "torch",
    "write_for_torch": "torch",
    "write_litert": "litert",
    "write_onnx": "onnx",
    "write_preset": "preset",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TENSORFLOW:
        return getattr(importlib.import_module(f"{__name__}.{_NEED_TENSORFLOW[name]}"), name)
    raise AttributeError(f"module 'keras_ssl.export' has no attribute {name!r}")
