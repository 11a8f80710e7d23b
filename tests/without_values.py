"""Networks of full size for tests of shapes and names alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
from keras.src.backend.common import global_state

_LIST = "uninitialized_variables"


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Variables made here never get values: no time, no memory.

    Keras's scope alone only puts them off: the next network that is called on a symbolic input, in whichever test,
    fills all of them, and a list of Keras keeps them alive until then.
    """
    before = list(global_state.get_global_attribute(_LIST) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(_LIST, before)
