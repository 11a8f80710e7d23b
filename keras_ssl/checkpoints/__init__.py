"""Reading and writing checkpoint files of other libraries, without running what is in them. Imports no TensorFlow."""

from keras_ssl.checkpoints.errors import CheckpointError
from keras_ssl.checkpoints.reader import Checkpoint, describe, read
from keras_ssl.checkpoints.safetensors import write_safetensors
from keras_ssl.checkpoints.torch_writer import write_torch
from keras_ssl.checkpoints.tree import flatten, select_tensors
from keras_ssl.checkpoints.values import Opaque

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Opaque",
    "describe",
    "flatten",
    "read",
    "select_tensors",
    "write_safetensors",
    "write_torch",
]
