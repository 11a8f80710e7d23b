"""Drop-path: per sample, by key and name, right in expectation."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.layers import stochastic_depth

KEYS = random.sample_keys(7, tf.range(4096, dtype=tf.int64))


def dropped(keys=KEYS, name="block0/mlp", rate=0.25):
    ones = tf.ones((keys.shape[0], 2, 3))
    return stochastic_depth(ones, keys, name=name, rate=rate, training=True).numpy()


def test_each_sample_is_dropped_whole_or_scaled():
    y = dropped()
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(4.0 / 3.0)}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))


def test_rate_and_expectation():
    """4,096 samples at rate 0.25: standard error of the mean 0.0090."""
    y = dropped()
    assert abs((y == 0).mean() - 0.25) < 0.03
    assert abs(y.mean() - 1.0) < 0.04


def test_choice_depends_on_key_and_name_only():
    whole = dropped()
    np.testing.assert_array_equal(dropped(keys=KEYS[1000:1100]), whole[1000:1100])
    other = dropped(name="block1/mlp")
    both = ((whole[:, 0, 0] == 0) & (other[:, 0, 0] == 0)).mean()
    assert abs(both - 0.25**2) < 0.02


def test_identity_when_off():
    x = tf.random.normal((4, 5))
    assert stochastic_depth(x, None, name="a", rate=0.5, training=False) is x
    assert stochastic_depth(x, None, name="a", rate=0.5, training=None) is x
    assert stochastic_depth(x, None, name="a", rate=0.0, training=True) is x


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_keeps_the_dtype(dtype):
    y = stochastic_depth(tf.ones((64, 2), dtype), KEYS[:64], name="a", rate=0.5, training=True)
    assert y.dtype == dtype and set(np.unique(tf.cast(y, "float32"))) == {0.0, 2.0}


def test_errors():
    with pytest.raises(ValueError, match="keys=None"):
        stochastic_depth(tf.ones((2, 2)), None, name="a", rate=0.1, training=True)
    with pytest.raises(ValueError, match="rate=1.0"):
        stochastic_depth(tf.ones((2, 2)), KEYS[:2], name="a", rate=1.0, training=False)
