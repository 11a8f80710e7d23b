"""One Python function that graphs from other processes can call.

A graph holds no Python: `tf.numpy_function` writes only a token into it, which is looked up in the process that runs
the graph. TensorFlow counts tokens up from `pyfunc_0`, so the first function that a process hands over has the same
token everywhere, and a graph made elsewhere can name it. This file is all that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

TOKEN = "pyfunc_0"
_kept: list[
    tf.Graph
] = []  # the graph owns the function; TensorFlow itself only has a weak reference


def publish(function: Callable[..., list[np.ndarray]]) -> None:
    """Makes a function the one that `call` runs in this process.

    Args:
        function: takes and returns NumPy arrays; called from several threads at once.

    Raises:
        RuntimeError: if the process has handed a Python function to TensorFlow before, or TensorFlow names them
            otherwise.
    """
    graph = tf.Graph()
    with graph.as_default():
        tf.numpy_function(function, [], [tf.float32])
    tokens = [
        operation.get_attr("token").decode()
        for operation in graph.get_operations()
        if operation.type == "PyFunc"
    ]
    if tokens != [TOKEN]:
        raise RuntimeError(
            f"Expected the token {TOKEN} for the first Python function that TensorFlow is given. Received: "
            f"{', '.join(tokens) or 'none'} from TensorFlow {tf.__version__}; publish in a process of its own, "
            "or read without an input service."
        )
    _kept.append(graph)


def call(inputs: Sequence[tf.Tensor], types: Sequence[tf.DType]) -> list[tf.Tensor]:
    """Calls what the process that runs the graph has published.

    Args:
        inputs: tensors, the arguments.
        types: dtypes of the results.

    Returns:
        Tensors of unknown shape.
    """
    return tf.raw_ops.PyFunc(input=list(inputs), token=TOKEN, Tout=list(types))
