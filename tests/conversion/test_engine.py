"""The accounting of the conversion: every tensor used or left out, every variable filled, nothing half done."""

import re

import keras
import numpy as np
import pytest

from keras_ssl.conversion import Layout, Port, convert, extract
from keras_ssl.conversion.engine import CONVOLUTION, DENSE, DEPTHWISE, axes, shaped
from keras_ssl.conversion.plain import flattened
from keras_ssl.conversion.regnet import POINTWISE
from keras_ssl.conversion.vit import patch_kernel


@pytest.fixture
def network():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, (3, 2)), keras.layers.Dense(5)]
    )
    return model


def ports(network):
    conv, dense = network.layers
    return [
        Port("conv.weight", conv.kernel, CONVOLUTION),
        Port("conv.bias", conv.bias),
        Port("fc.weight", dense.kernel, DENSE),
        Port("fc.bias", dense.bias),
    ]


LAYOUT = Layout("example", ports, left_out=(r"head\..*", r".*num_batches_tracked"))


def tensors(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (4, 3, 3, 2), "conv.bias": (4,), "fc.weight": (5, 4), "fc.bias": (5,)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def test_every_tensor_lands_with_its_axes_turned(network):
    given = tensors()
    certificate = convert({**given, "head.weight": np.zeros((2, 2))}, network, LAYOUT)
    conv, dense = network.layers
    assert conv.kernel.numpy()[2, 1, 0, 3] == given["conv.weight"][3, 0, 2, 1]
    assert dense.kernel.numpy()[1, 4] == given["fc.weight"][4, 1]
    assert certificate["tensors_used"] == 4
    assert certificate["left_out"] == ["head.weight"]
    assert certificate["variables_filled"] == 4


def test_extract_is_convert_backwards(network):
    given = tensors(1)
    convert(given, network, LAYOUT)
    back = extract(network, LAYOUT)
    assert list(back) == list(given)
    for key, value in given.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, "without 1 of them: 'fc.bias'"),
        ({"extra": np.zeros(3)}, "1 more: 'extra'"),
        ({"fc.weight": np.zeros((4, 5), np.float32)}, r"'fc.weight' with shape \(5, 4\)"),
        ({"conv.weight": np.zeros(7, np.float32)}, r"'conv.weight' with shape \(4, 3, 3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_assigned(network, change, message):
    before = [variable.numpy() for variable in network.variables]
    given = {key: value for key, value in {**tensors(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        convert(given, network, LAYOUT)
    for old, variable in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize(
    ("turn", "variable", "wrong", "wanted"),
    [  # all of these could be turned into the variable's shape
        (patch_kernel(4), (48, 16), (16, 12, 2, 2), (16, 3, 4, 4)),
        (POINTWISE, (8, 2), (2, 8, 3, 3), (2, 8, 1, 1)),
        (POINTWISE, (8, 2), (2, 8), (2, 8, 1, 1)),
        (flattened((2, 3, 4)), (24, 5), (5, 4, 2, 3), (5, 24)),
        (shaped((1, 1, 6), (6,)), (6,), (2, 3), (1, 1, 6)),
    ],
)
def test_the_shape_of_the_file_counts_not_the_one_after_the_turn(turn, variable, wrong, wanted):
    network = keras.Sequential([keras.Input((1,))])
    target = network.add_weight(shape=variable, initializer="zeros", name="x")
    layout = Layout("one", lambda network: [Port("x", target, turn)])
    message = re.escape(f"Expected 'x' with shape {wanted}. Received: shape={wrong}")
    with pytest.raises(ValueError, match=message):
        convert({"x": np.ones(wrong, np.float32)}, network, layout)
    convert({"x": np.ones(wanted, np.float32)}, network, layout)
    assert np.all(target.numpy() == 1)


def test_a_variable_that_nothing_fills_is_refused(network):
    half = Layout("half", lambda network: ports(network)[:3], left_out=("fc.bias",))
    with pytest.raises(ValueError, match="which no tensor fills"):
        convert(tensors(), network, half)


@pytest.mark.parametrize("turn", [CONVOLUTION, DEPTHWISE, axes(3, 0, 2, 1)])
def test_turns_have_an_inverse(turn):
    value = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(turn.to_source(turn.to_keras(value)), value)


def test_reshapes_have_an_inverse():
    value = np.arange(6).reshape(1, 1, 6)
    turn = shaped((1, 1, 6), (6,))
    assert turn.to_keras(value).shape == (6,)
    assert turn.to_source(turn.to_keras(value)).shape == (1, 1, 6)
