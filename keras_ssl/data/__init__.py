"""Where samples come from: sources with random access, and the sample stream."""

from keras_ssl.data.arrays import ArraySource, load_digits, load_npz
from keras_ssl.data.base import DataError, Source
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.examples import ExampleSource, open_tfrecords
from keras_ssl.data.folder import FolderSource
from keras_ssl.data.parquet import ParquetSource
from keras_ssl.data.prepared import PreparedSource, open_folder, prepare
from keras_ssl.data.quarantine import Quarantine
from keras_ssl.data.sources import open_source
from keras_ssl.data.stream import SampleStream, batches
from keras_ssl.data.tar import TarSource
from keras_ssl.data.tfds import TFDSSource, open_tfds

__all__ = [
    "ArraySource",
    "DataError",
    "EncodedSource",
    "ExampleSource",
    "FolderSource",
    "ParquetSource",
    "PreparedSource",
    "Quarantine",
    "SampleStream",
    "Source",
    "TFDSSource",
    "TarSource",
    "batches",
    "load_digits",
    "load_npz",
    "open_folder",
    "open_source",
    "open_tfds",
    "open_tfrecords",
    "prepare",
]
