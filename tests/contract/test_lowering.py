"""The whole train step of each method is one XLA program that an accelerator could take: what a TPU asks for.

A TPU compiles the step as one program. It has no dynamic shapes, cannot call back to Python or to a kernel outside XLA,
and cannot wait for the host in the middle. Each test lowers `train_step` (views from uint8 images, losses, gradient,
clipping, optimizer, teacher, queue, center, report) in bfloat16 to XLA's HLO on this CPU and reads the text.

That proves that every operation has an XLA form with static shapes, and that all state is written inside the program.
It does not prove that a TPU's compiler takes each of them, that the program fits its memory, or anything about speed:
TensorFlow's CPU build has no TPU kernels to ask. The collectives between replicas are not in it either, for XLA on
CPUs has none.
"""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.contract.rows import BATCH, ROWS, bind, build, images

QUICK = ("byol",)
CONSTANT = ("/learning_rate",)  # what no step writes
SINES = {"mae": ("/position_table",)}  # others learn theirs
FORBIDDEN = ("custom-call", "infeed", "outfeed", "send", "recv", "send-done", "recv-done")
SHAPE = re.compile(r"\b[a-z]+[0-9]*[a-z0-9]*\[([^\]]*)\]")  # f32[8,16], s32[<=8]
DELICATE = re.compile(
    r"= b?f16\[[^=]*? (exponential|log|log-plus-one|sqrt|rsqrt|power|divide|reduce|reduce-window)\("
)
INSTRUCTION = re.compile(r"= (?:\([^()]*\)|\S+) ([a-z][\w-]*)\(")


@pytest.fixture(autouse=True)
def bfloat16():
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(old)


def batch_of(seed=0):
    position = tf.range(BATCH, dtype=tf.int64)
    return {"inputs": {"image": tf.constant(images(BATCH, seed))}, "position": position}


def lower(step, *arguments):
    """Returns the HLO text of a function of tensors, as it is before XLA's own optimizations."""
    return tf.function(step, jit_compile=True).experimental_get_compiler_ir(*arguments)(stage="hlo")


def obstacles(hlo):
    """Returns what a TPU would refuse in the text: dynamic shapes, calls out of the program, float64."""
    found = {f"[{sizes}]" for sizes in SHAPE.findall(hlo) if "<=" in sizes or "?" in sizes}
    found |= {name for name in INSTRUCTION.findall(hlo) if name in FORBIDDEN}
    return found | set(re.findall(r"\bf64(?=\[)", hlo))


def narrow(hlo):
    """Returns the delicate operations whose result is in half precision; GELU and its slope may be.

    Roots, logarithms, exponentials, quotients and sums: losses, softmax, norms, statistics and Sinkhorn need float32.
    """
    found = DELICATE.findall(hlo)
    slopes = len(
        re.findall(r"= b?f16\[[^=]*? erf\(", hlo)
    )  # each GELU's slope holds one exponential
    return set(found) - ({"exponential"} if found.count("exponential") <= slopes else set())


def written(hlo):
    """Returns how many variables the program writes: outputs that share the memory of an input."""
    header = hlo.partition("\n")[0]
    return len(re.findall(r"\{\d+\}: \(\d+, \{\}", header))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ROWS]
)
def test_the_whole_step_is_one_static_program(name):
    model = bind(build(name, clip_norm=1.0))
    hlo = lower(model.train_step, batch_of())
    assert len(INSTRUCTION.findall(hlo)) > 1000
    assert obstacles(hlo) == set()
    assert narrow(hlo) == set() and "bf16[" in hlo
    state = [*model.variables, *model.optimizer.variables]
    names = (*CONSTANT, *SINES.get(name, ()))
    constant = [variable for variable in state if variable.path.endswith(names)]
    assert written(hlo) == len(state) - len(constant)


def spoiled(spoil):
    """Returns the program of a small step whose loss goes through `spoil`."""
    model = bind(build("rotnet"))
    plain = model.loss

    def loss(embeddings, views):
        value, aux = plain(embeddings, views)
        return value + spoil(value, views["rotations"]), aux

    model.loss = loss
    views = model.make_views(batch_of())
    return lower(model.train_step, {"views": views})


def test_dynamic_shapes_are_noticed():
    """The number of bright pixels: an index list of unknown length on the way."""

    def spoil(value, view):
        return tf.cast(tf.reduce_sum(tf.where(view > 0.5)), value.dtype)

    found = obstacles(spoiled(spoil))
    assert found and all("<=" in shape for shape in found)


def test_calls_to_python_are_noticed():
    """No text at all: there is nothing that XLA could put in the place of a Python function."""

    def spoil(value, view):
        mean = tf.numpy_function(np.mean, [view], view.dtype, stateful=False)
        return tf.stop_gradient(tf.cast(tf.ensure_shape(mean, []), value.dtype))

    with pytest.raises(ValueError, match="PyFunc"):
        spoiled(spoil)


@pytest.mark.parametrize(
    "line, found",
    [
        ("  %a = f32[8,16]{1,0} add(f32[8,16] %x, f32[8,16] %y)", set()),
        ("  ROOT %a = (f32[8], s32[<=8]) tuple(f32[8] %x, s32[<=8] %y)", {"[<=8]"}),
        ('  %a = (f32[8], u8[16]) custom-call(f32[8] %x), custom_call_target="K"', {"custom-call"}),
        ("  %a = f64[2,3]{1,0} convert(f32[2,3] %x)", {"f64"}),
        ("  %a = token[] outfeed(f32[8] %x, token[] %t)", {"outfeed"}),
    ],
)
def test_reading_the_text(line, found):
    assert obstacles(line) == found


@pytest.mark.parametrize(
    "text, found",
    [
        ("%a = bf16[8]{0} add(bf16[8] %x, bf16[8] %y)\n%b = f32[8]{0} log(f32[8] %z)", set()),
        ("%a = f16[8,2]{1,0} log(f16[8,2] %x)", {"log"}),
        ("%a = bf16[8]{0} reduce(bf16[8,2] %x, bf16[] %y), dimensions={1}", {"reduce"}),
        ("%a = bf16[8]{0} erf(bf16[8] %x)\n%b = bf16[8]{0} exponential(bf16[8] %y)", set()),
        ("%b = bf16[8]{0} exponential(bf16[8] %y)", {"exponential"}),
    ],
)
def test_reading_of_half_precision(text, found):
    assert narrow(text) == found
