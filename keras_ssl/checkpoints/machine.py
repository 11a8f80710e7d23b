"""A pickle machine that builds plain values, and calls nothing but the builders that it was handed.

Python's own unpickler imports what a file names and calls it. This one never imports: a name becomes a `Global`, whose
builder is one of ours or nobody. It also keeps large strings of bytes as views of the file, so that a pickle of
several gigabytes of arrays costs no memory, and its work is bounded by the length of the file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

from keras_ssl.checkpoints.errors import CheckpointError
from keras_ssl.checkpoints.opcodes import STEPS, pairs
from keras_ssl.checkpoints.values import Global, Namespace, Opaque, Pending

MAX_OPCODES = 20_000_000  # a state dict takes about thirty for each tensor
_LONGEST_LINE = 1 << 20
_COST = {
    list: 8,
    tuple: 8,
    dict: 64,
    set: 64,
}  # bytes for each element, about; 1 for each character or byte


class Machine:
    """Runs one pickle.

    Args:
        data: bytes or memory map that holds it.
        find: callable. From a module's and an attribute's name to a `Global`; raises for what is not allowed.
        persistent: callable. From a persistent id to an object. Defaults to `None`: there are none.
        position: int. Where the pickle starts; after `load`, where it ended.
        end: int. Where the data end. Defaults to their length.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        find: Callable[[str, str], Global],
        persistent: Callable[[Any], Any] | None = None,
        position: int = 0,
        end: int | None = None,
    ):
        self.data, self.view = data, memoryview(data)
        self.position, self.end = position, len(data) if end is None else end
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.allowance = 4 * len(data) + (1 << 24)

    def load(self) -> Any:
        """Returns the object of the pickle, or raises `CheckpointError`."""
        try:
            for _ in range(MAX_OPCODES):
                code = self.take(1)[0]
                if code == 0x2E:  # STOP
                    return self.stack.pop()
                step = STEPS.get(code)
                if step is None:
                    raise CheckpointError(
                        f"Expected a pickle of plain values. Received: opcode {code:#04x} at byte "
                        f"{self.position - 1}, which is not allowed."
                    )
                step(self)
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                "Expected a whole pickle. Received: one that is damaged or cut off near byte "
                f"{self.position} ({type(error).__name__})."
            ) from error
        raise CheckpointError(f"Expected a pickle of at most {MAX_OPCODES} steps. Received: more.")

    # reading ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        """Returns the next `count` bytes."""
        start, stop = self.position, self.position + count
        if count < 0 or stop > self.end:
            raise CheckpointError(
                f"Expected a whole pickle. Received: one whose next {count} bytes from byte {start} "
                f"are not all there; it ends at {self.end}."
            )
        self.position = stop
        return self.view[start:stop]

    def number(self, form: str) -> Any:
        """Returns the next number in the form that `struct` names."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """Returns the bytes up to the next line feed, without it."""
        stop = self.data.find(b"\n", self.position, min(self.end, self.position + _LONGEST_LINE))
        line = bytes(self.take(stop - self.position))
        self.position += 1
        return line

    # the stack ----------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def put(self, slot: int) -> None:
        value = self.stack[-1]
        self.memo[slot] = value
        if isinstance(value, Pending):
            value.slots.append(slot)

    def spend(self, values: tuple) -> None:
        """Charges the bytes that a builder may copy: the same list copied again and again uses up the allowance."""
        for value in values:
            if isinstance(value, (str, bytes, list, tuple, dict, set)):
                each = _COST.get(type(value), 1)
                self.allowance -= each * len(value)
        if self.allowance < 0:
            raise CheckpointError(
                "Expected a pickle of plain values. Received: one that grows without end."
            )

    # what pickles do ----------------------------------------------------------------------------------------

    def call(self, target: Any, args: Any) -> None:
        """Pushes what stands for `target(*args)`."""
        if not isinstance(target, Global) or not isinstance(args, tuple):
            raise CheckpointError(
                f"Expected a pickle of plain values. Received: one that calls {type(target).__name__!r}."
            )
        self.spend(args)
        self.push(Opaque(target.name, args) if target.build is None else target.build(*args))

    def build(self) -> None:
        """Gives an object its state; a state of what is no `Opaque` is dropped, as torch's `_metadata`."""
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, Pending):
            self.spend(state if isinstance(state, tuple) else ())
            self.stack[-1] = finished = value.finish(value, state)
            for slot in value.slots:
                self.memo[slot] = finished
        elif isinstance(value, Opaque):
            value.state = state
        elif isinstance(value, Namespace) and isinstance(state, dict):
            self.spend((state,))
            value.update(state)
        elif isinstance(value, Global):
            raise CheckpointError(
                f"Expected plain values. Received: a change of the class {value.name!r}."
            )

    def extend(self, items: list[Any]) -> None:
        value = self.stack[-1]
        if isinstance(value, list):
            value.extend(items)
        elif not isinstance(value, Opaque):
            raise TypeError(f"append to {type(value)}")

    def fill(self, items: list[Any]) -> None:
        value = self.stack[-1]
        if isinstance(value, dict):
            value.update(pairs(items))
        elif not isinstance(value, Opaque):
            raise TypeError(f"set items of {type(value)}")
