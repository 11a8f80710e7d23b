"""The steps of a pickle: for each opcode, what it does to the machine that runs it."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_ssl.checkpoints.errors import CheckpointError
from keras_ssl.checkpoints.values import Global, checked_key

if TYPE_CHECKING:
    from keras_ssl.checkpoints.machine import Machine

_LARGE = 4096  # bytes; longer strings of bytes stay views of the file


def pairs(items: list[Any]) -> dict[Any, Any]:
    return {checked_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def _text(view: memoryview) -> str:
    return str(view, "utf-8", "surrogatepass")


def _bytes(view: memoryview) -> bytes | memoryview:
    return bytes(view) if len(view) <= _LARGE else view


def _old_text(view: memoryview) -> str | memoryview:
    """Python 2's strings: text if short, bytes of an array if long."""
    return str(view, "latin-1") if len(view) <= _LARGE else view


def _long(view: memoryview) -> int:
    if len(view) > 1024:
        raise CheckpointError(f"Expected numbers. Received: one of {len(view)} bytes.")
    return int.from_bytes(view, "little", signed=True)


def _sized(form: str, make: Callable[[memoryview], Any]) -> Callable[[Machine], None]:
    return lambda m: m.push(make(m.take(m.number(form))))


def _line(make: Callable[[bytes], Any]) -> Callable[[Machine], None]:
    return lambda m: m.push(make(m.line()))


def _pushed(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    return lambda m: m.push(make(m))


def _last(count: int) -> Callable[[Machine], None]:
    def step(m: Machine) -> None:
        if len(m.stack) < count:
            raise IndexError("stack")
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return step


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise ValueError("quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")


def _integer(line: bytes) -> int | bool:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _global(m: Machine) -> Global:
    return m.find(m.line().decode(), m.line().decode())


def _stack_global(m: Machine) -> Global:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("name")
    return m.find(module, name)


def _persistent(m: Machine, key: Any) -> None:
    if m.persistent is None:
        raise CheckpointError(f"Expected no persistent ids. Received: {type(key).__name__}.")
    m.push(m.persistent(key))


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.since_mark()


def _call_top(m: Machine) -> None:
    args = m.stack.pop()
    m.call(m.stack.pop(), args)


def _call_with_names(m: Machine) -> None:
    names, args, target = m.stack.pop(), m.stack.pop(), m.stack.pop()
    if not isinstance(names, dict) or names:
        raise CheckpointError("Expected plain values. Received: a call with named arguments.")
    m.call(target, args)


def _call_object(m: Machine) -> None:
    target, *args = m.since_mark()
    m.call(target, tuple(args))


def _call_named(m: Machine) -> None:
    target = _global(m)
    m.call(target, tuple(m.since_mark()))


def _add(m: Machine) -> None:
    items = m.since_mark()
    m.stack[-1].update([checked_key(item) for item in items])


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.fill([key, value])


def _ignore(form: str) -> Callable[[Machine], None]:
    return lambda m: m.number(form)


_BY_CODE: dict[bytes, Callable[[Machine], None]] = {
    b"(": lambda m: m.mark(),
    b"0": _pop,
    b"1": lambda m: m.since_mark(),
    b"2": _pushed(lambda m: m.stack[-1]),
    b"F": _line(float),
    b"I": _line(_integer),
    b"J": _pushed(lambda m: m.number("<i")),
    b"K": _pushed(lambda m: m.number("<B")),
    b"M": _pushed(lambda m: m.number("<H")),
    b"L": _line(lambda line: int(line.rstrip(b"L"))),
    b"N": _pushed(lambda m: None),
    b"G": _pushed(lambda m: m.number(">d")),
    b"P": lambda m: _persistent(m, m.line().decode()),
    b"Q": lambda m: _persistent(m, m.stack.pop()),
    b"S": _line(_quoted),
    b"T": _sized("<i", _old_text),
    b"U": _sized("<B", _old_text),
    b"V": _line(lambda line: str(line, "raw-unicode-escape")),
    b"X": _sized("<I", _text),
    b"\x8c": _sized("<B", _text),
    b"\x8d": _sized("<Q", _text),
    b"B": _sized("<I", _bytes),
    b"C": _sized("<B", _bytes),
    b"\x8e": _sized("<Q", _bytes),
    b"\x96": _sized("<Q", _bytes),
    b"R": _call_top,
    b"i": _call_named,
    b"o": _call_object,
    b"\x81": _call_top,
    b"\x92": _call_with_names,
    b"b": lambda m: m.build(),
    b"c": _pushed(_global),
    b"\x93": _pushed(_stack_global),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b"s": _set_item,
    b"u": lambda m: m.fill(m.since_mark()),
    b"d": _pushed(lambda m: pairs(m.since_mark())),
    b"l": _pushed(lambda m: m.since_mark()),
    b"t": _pushed(lambda m: tuple(m.since_mark())),
    b"}": _pushed(lambda m: {}),
    b"]": _pushed(lambda m: []),
    b")": _pushed(lambda m: ()),
    b"\x8f": _pushed(lambda m: set()),
    b"\x90": _add,
    b"\x91": _pushed(lambda m: frozenset([checked_key(item) for item in m.since_mark()])),
    b"\x85": _last(1),
    b"\x86": _last(2),
    b"\x87": _last(3),
    b"\x88": _pushed(lambda m: True),
    b"\x89": _pushed(lambda m: False),
    b"\x8a": _sized("<B", _long),
    b"\x8b": _sized("<i", _long),
    b"g": _pushed(lambda m: m.memo[int(m.line())]),
    b"h": _pushed(lambda m: m.memo[m.number("<B")]),
    b"j": _pushed(lambda m: m.memo[m.number("<I")]),
    b"p": lambda m: m.put(int(m.line())),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"\x80": _ignore("<B"),  # protocol
    b"\x95": _ignore("<Q"),  # length of a frame
}
STEPS = {code[0]: step for code, step in _BY_CODE.items()}
