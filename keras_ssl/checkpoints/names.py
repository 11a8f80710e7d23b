"""The names that a pickle may use, and what stands in for them. Nothing here is imported from a name in a file."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from keras_ssl.checkpoints.dtypes import dtype_named
from keras_ssl.checkpoints.errors import CheckpointError, shown
from keras_ssl.checkpoints.storages import rebuild_tensor, rebuild_typed_tensor
from keras_ssl.checkpoints.values import Global, Namespace, Opaque, Pending, checked_key

# Python 2's names, and NumPy's before 2.0.
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}

# Classes of these packages become an `Opaque`: arguments, optimizers, callbacks, whole modules beside the weights.
_LIBRARIES_TEXT = """
torch torchvision apex timm fairscale fvcore iopath pytorch_lightning lightning lightning_fabric
lightly solo torchmetrics omegaconf hydra yacs easydict addict mmcv mmengine mmselfsup vissl
classy_vision lib models jax jaxlib haiku optax byol numpy collections pathlib enum datetime typing
decimal uuid ml_collections
"""
_LIBRARIES = frozenset(_LIBRARIES_TEXT.split())
_CLASS = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*", re.ASCII)

# Functions, and classes with a small letter, that may be named but are not run. `exclude_bias_and_norm` stands in the
# optimizer of Barlow Twins' and VICReg's full checkpoints, as users of the two projects found.
_INERT_TEXT = """
builtins.int builtins.float builtins.str builtins.bool builtins.bytes builtins.bytearray
builtins.complex builtins.object builtins.slice builtins.range builtins.type
 datetime.datetime datetime.date datetime.timedelta datetime.time datetime.timezone
numpy.ndarray numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__generator_ctor
numpy.random._pickle.__bit_generator_ctor torch.strided torch.sparse_coo
torch.serialization._get_layout torch._utils._rebuild_sparse_tensor torch._utils._rebuild_qtensor
torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor
torch._utils._rebuild_wrapper_subclass torch.nn.backends.thnn._get_thnn_function_backend
functools.partial dill._dill._load_type
__main__.exclude_bias_and_norm __mp_main__.exclude_bias_and_norm
"""
_INERT = frozenset(_INERT_TEXT.split())
_TORCH_DTYPES_TEXT = """
float64 float32 float16 half float double bfloat16 int64 int32 int16 int8 long int short uint8
uint16 uint32 uint64 bool complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz
float8_e5m2fnuz
"""
_TORCH_DTYPES = frozenset(_TORCH_DTYPES_TEXT.split())


def find(module: str, name: str) -> Global:
    """Returns what stands in for a name of a pickle.

    Raises:
        CheckpointError: for every name that is not on the list; nothing is imported to find out.
    """
    full = f"{_RENAMED.get(module, module)}.{name}"
    if full in _BUILDERS:
        return Global(full, _BUILDERS[full])
    if full in _INERT or (module == "torch" and name in _TORCH_DTYPES):
        return Global(full)
    if module.split(".")[0] in _LIBRARIES and _CLASS.fullmatch(name):
        return Global(full)
    raise CheckpointError(
        "Expected a checkpoint of tensors, plain values and the objects of known libraries. "
        f"Received: a pickle that names {shown(full)}, which could run code and is refused."
    )


# plain containers ------------------------------------------------------------------------------------------


def _dict(items: Any = ()) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    return {checked_key(key): value for key, value in _plain(items)}


def _plain(items: Any) -> Any:
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise TypeError(f"items of {type(items)}")
    return items


def _reconstructed(cls: Any, base: Any, state: Any) -> Any:
    """What protocol 0 and 1 write for an object of a class of Python."""
    if not isinstance(cls, Global):
        raise TypeError("class")
    return Opaque(cls.name) if cls.build is None else cls.build()


def _encoded(text: str, encoding: str = "latin-1") -> bytes:
    """How protocols before 3 write bytes."""
    if encoding not in ("latin-1", "latin1", "utf-8", "ascii"):
        raise ValueError(encoding)
    return text.encode(encoding)


def _named_tuple(name: Any, fields: Any, *rest: Any) -> Global:
    """The class that dill writes for a named tuple; its objects become dictionaries."""
    fields = tuple(fields.replace(",", " ").split() if isinstance(fields, str) else _plain(fields))
    if not all(isinstance(text, str) for text in (name, *fields)):
        raise TypeError("fields")
    return Global(name, lambda *values: dict(zip(fields, values, strict=True)))


def _mapping(value: Any) -> Any:
    """Haiku's mappings that cannot be changed."""
    if not isinstance(value, dict):
        raise TypeError("mapping")
    return value


# NumPy -------------------------------------------------------------------------------------------------------


def _dtype(spec: Any, *rest: Any) -> Pending:
    return Pending("numpy.dtype", (spec, *rest), lambda self, state: _element(self, state))


def _element(dtype: Any, state: Any = None) -> np.dtype | Opaque:
    """Returns the element type of NumPy's own notation; an `Opaque` for objects, texts and records."""
    if isinstance(dtype, np.dtype):
        return dtype
    spec = dtype.args[0] if isinstance(dtype, Opaque) and dtype.args else None
    if isinstance(spec, Global):
        return dtype_named(spec.name.rpartition(".")[2])
    if not isinstance(spec, str) or not re.fullmatch(r"[<>=|]?([biufc][0-9]{1,2}|\?)", spec):
        return Opaque("numpy.dtype", (spec,))
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    return np.dtype(spec).newbyteorder(order if order in ("<", ">") else "=")


def _array(pending: Pending, state: Any) -> Any:
    """Returns the array of (version, shape, element type, whether Fortran's order, bytes)."""
    shape, dtype, fortran, data = state[-4:]
    return _from_bytes(data, dtype, shape, "F" if fortran else "C")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str = "C") -> Any:
    element = _element(dtype)
    if isinstance(element, Opaque):
        return Opaque("numpy.ndarray", (shape,))
    data = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(data, (bytes, memoryview)):
        raise TypeError("array data")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if min(shape, default=0) < 0 or math.prod(shape) * element.itemsize != len(data):
        raise CheckpointError(
            f"Expected {shown(shape)} elements of {element}. Received: {len(data)} bytes of them."
        )
    return np.frombuffer(data, element).reshape(shape, order="F" if order == "F" else "C")


def _empty_array(*args: Any) -> Pending:
    return Pending("numpy.ndarray", args, _array)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    element = _element(dtype)
    return element if isinstance(element, Opaque) else _from_bytes(data, element, ())[()]


def _jax_array(rebuild: Any, args: Any, state: Any, *rest: Any) -> Any:
    return _array(_empty_array(), state)


# PyTorch -----------------------------------------------------------------------------------------------------


def _size(items: Any = ()) -> tuple:
    return tuple(_plain(items))


def _device(kind: Any = "cpu", index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, (int, type(None))):
        raise TypeError("device")
    return kind if index is None else f"{kind}:{index}"


def _parameter(data: Any = None, *rest: Any) -> Any:
    return Opaque("torch.nn.parameter.Parameter") if data is None else data


def _typed(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass: what its function makes of its arguments."""
    if not isinstance(function, Global) or function.build is None or not isinstance(args, tuple):
        raise TypeError("function")
    return function.build(*args)


_BUILDERS: dict[str, Any] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": lambda *factory: {},
    "collections.deque": lambda items=(), length=None: list(_plain(items)),
    "builtins.dict": _dict,
    "builtins.list": lambda items=(): list(_plain(items)),
    "builtins.tuple": lambda items=(): tuple(_plain(items)),
    "builtins.set": lambda items=(): {checked_key(item) for item in _plain(items)},
    "builtins.frozenset": lambda items=(): frozenset(checked_key(item) for item in _plain(items)),
    "argparse.Namespace": lambda: Namespace(),
    "types.SimpleNamespace": lambda: Namespace(),
    "copyreg._reconstructor": _reconstructed,
    "_codecs.encode": _encoded,
    "dill._dill._create_namedtuple": _named_tuple,
    "haiku._src.data_structures.FlatMapping": _mapping,
    "haiku._src.data_structures.FlatMap": _mapping,
    "haiku._src.data_structures.frozendict": _mapping,
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_bytes,
    "jax._src.array._reconstruct_array": _jax_array,
    "jax._src.device_array.reconstruct_device_array": _jax_array,
    "torch.Size": _size,
    "torch.device": _device,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.autograd.variable.Variable": _parameter,
}
