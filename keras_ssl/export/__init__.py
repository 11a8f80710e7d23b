"""What leaves the house: an encoder as SavedModel, and the way back into Keras."""

from keras_ssl.export.layer import SavedModelEncoder, load_encoder
from keras_ssl.export.saved_model import export_encoder, float32_copy, read_metadata

__all__ = [
    "SavedModelEncoder",
    "export_encoder",
    "float32_copy",
    "load_encoder",
    "read_metadata",
]
