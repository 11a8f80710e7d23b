"""Teachers: exact copies, batch-norm in training mode, and the averaging formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import (
    MLP,
    WeightNormDense,
    clone_frozen,
    copy_weights,
    ema_pairs,
    update_ema,
)


def network():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(x)))


def mlp():
    layer = MLP([5, 3])
    layer.build((None, 4))
    return layer


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def shake(layer, seed=1):
    """Gives every weight its own random numbers."""
    for index, variable in enumerate(layer.weights):
        variable.assign(draw(*variable.shape, seed=seed + index) ** 2)


@pytest.mark.parametrize("make", [network, mlp, lambda: WeightNormDense(4, 3)])
def test_clone_is_exact_and_has_nothing_to_train(make):
    student = make()
    shake(student)
    teacher = clone_frozen(student)
    assert type(teacher) is type(student)
    for a, b in zip(teacher.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert teacher.trainable_variables == []
    assert len(student.trainable_variables) > 0
    assert not {id(v) for v in teacher.weights} & {id(v) for v in student.weights}
    np.testing.assert_array_equal(
        teacher(draw(6, 4), training=False), student(draw(6, 4), training=False)
    )


def test_batch_norm_of_the_teacher_stays_in_training_mode():
    """Both halves: it uses the batch's statistics, and its own moving statistics move."""
    student = network()
    teacher, frozen_layers = clone_frozen(student), clone_frozen(student)
    frozen_layers.trainable = False
    norm = teacher.layers[2]
    before = norm.moving_mean.numpy()
    x = 3 * draw(64, 4) + 5
    inner = keras.Model(teacher.input, norm.output)
    outputs = inner(x, training=True).numpy()
    np.testing.assert_allclose(outputs.mean(0), 0.0, atol=1e-4)
    assert np.abs(norm.moving_mean.numpy() - before).max() > 0.1
    # what freezing the layers would have done
    inner = keras.Model(frozen_layers.input, frozen_layers.layers[2].output)
    assert np.abs(inner(x, training=True).numpy().mean(0)).max() > 0.1


def test_update_equals_the_formula_for_trained_variables_only():
    student, m = network(), 0.75
    teacher = clone_frozen(student)
    shake(student)
    before = teacher.get_weights()
    update_ema(teacher, student, m)
    for old, new, source in zip(before, teacher.weights, student.weights, strict=True):
        if source.trainable:
            np.testing.assert_allclose(new.numpy(), m * old + (1 - m) * source.numpy(), rtol=1e-6)
        else:
            np.testing.assert_array_equal(new.numpy(), old)
    assert [s.path for _, s in ema_pairs(teacher, student)] == [
        v.path for v in student.trainable_variables
    ]


def test_statistics_are_averaged_on_request():
    student = network()
    teacher = clone_frozen(student)
    shake(student)
    update_ema(teacher, student, 0.0, average_statistics=True)
    for a, b in zip(teacher.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_momentum_one_and_zero_are_exact():
    student = network()
    teacher = clone_frozen(student)
    shake(student)
    before = teacher.get_weights()
    update_ema(teacher, student, tf.constant(1.0))
    for a, b in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    update_ema(teacher, student, 0.0)
    for target, source in ema_pairs(teacher, student):
        np.testing.assert_array_equal(target.numpy(), source.numpy())


def test_update_in_float64_is_exact():
    keras.config.set_dtype_policy("float64")
    try:
        student = mlp()
        teacher = clone_frozen(student)
        student.dense_layers[0].kernel.assign(np.full((4, 5), 0.3))
        old = teacher.dense_layers[0].kernel.numpy()
        update_ema(teacher, student, 0.9)
    finally:
        keras.config.set_dtype_policy("float32")
    new = teacher.dense_layers[0].kernel.numpy()
    np.testing.assert_allclose(new, 0.9 * old + (1 - 0.9) * 0.3, rtol=1e-15)


def test_half_precision_teacher_is_averaged_in_float32():
    """In bfloat16 the momentum 0.999 itself would round to 1, and a far student would never be reached."""
    student = WeightNormDense(4, 3, dtype="bfloat16")
    teacher = clone_frozen(student)
    student.kernel.assign(tf.fill((4, 3), 1024.0))
    teacher.kernel.assign(tf.zeros((4, 3)))
    update_ema(teacher, student, tf.constant(0.999))
    assert teacher.kernel.dtype == "bfloat16"
    np.testing.assert_allclose(tf.cast(teacher.kernel.value, tf.float32), 1.024, rtol=4e-3)


def test_copy_weights_copies_statistics_too():
    student = network()
    teacher = clone_frozen(student)
    shake(student)
    copy_weights(teacher, student)
    for a, b in zip(teacher.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_changes_of_the_configuration():
    student = WeightNormDense(4, 3, train_norm=True)
    assert clone_frozen(student, train_norm=False).train_norm is False
    with pytest.raises(ValueError, match="Received: \\['drop_path'\\]"):
        clone_frozen(student, drop_path=0.0)


def test_errors():
    with pytest.raises(ValueError, match="that is built"):
        clone_frozen(MLP([5, 3]))
    with pytest.raises(ValueError, match="same architecture"):
        update_ema(network(), mlp(), 0.5)
