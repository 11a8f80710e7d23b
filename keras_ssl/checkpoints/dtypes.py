"""Element types by the names that the formats use."""

from __future__ import annotations

import numpy as np

from keras_ssl.checkpoints.errors import CheckpointError, shown

_NUMPY_TEXT = """
float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128
"""
_NUMPY = frozenset(_NUMPY_TEXT.split())
_ML_DTYPES_TEXT = """
bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
"""
_ML_DTYPES = frozenset(_ML_DTYPES_TEXT.split())


def dtype_named(name: str) -> np.dtype:
    """Returns the element type of a name such as `"float32"` or `"bfloat16"`.

    Raises:
        CheckpointError: for any other name.
    """
    if name in _NUMPY:
        return np.dtype(name)
    if name in _ML_DTYPES:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    raise CheckpointError(f"Expected elements of a known type. Received: {shown(name)}.")


def in_native_order(view: memoryview, dtype: np.dtype, big_endian: bool) -> memoryview:
    """Returns the bytes in this machine's order; a copy if they have to be turned round."""
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    if not big_endian or size == 1:
        return view
    return memoryview(np.frombuffer(view, f">u{size}").astype(f"=u{size}")).cast("B")
