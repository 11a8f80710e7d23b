"""Parameter groups, frozen starts, refused steps, precision and saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.optimizers import (
    LAMB,
    LARS,
    SGD,
    AdamW,
    CosineRamp,
    ParameterGroup,
    StepDecay,
    WarmupCosine,
)

EVERY = [
    lambda: SGD(0.1, weight_decay=0.01),
    lambda: AdamW(0.1),
    lambda: LARS(0.1, weight_decay=0.01),
    lambda: LAMB(0.1),
]


def two_layers():
    """Returns a kernel and a bias of a `first` and a `second` layer."""
    model = keras.Sequential(
        [keras.layers.Dense(3, name="first"), keras.layers.Dense(2, name="second")]
    )
    model.build((None, 4))
    return model


def ones(variables):
    return [tf.ones(variable.shape, variable.dtype) for variable in variables]


def state(optimizer, variables):
    """Returns every number that a step may change, except the counter of steps."""
    kept = [v.numpy() for v in variables]
    return kept + [v.numpy() for v in optimizer.variables if "iteration" not in v.path]


def assert_same(before, after):
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_scale_of_a_group():
    variables = two_layers().trainable_variables
    optimizer = SGD(0.1, momentum=0.0)
    optimizer.set_parameter_groups([ParameterGroup("second", learning_rate_scale=0.5)])
    optimizer.build(variables)
    before = [v.numpy() for v in variables]
    optimizer.apply(ones(variables), variables)
    moved = [float(b.mean() - v.numpy().mean()) for b, v in zip(before, variables, strict=True)]
    np.testing.assert_allclose(moved, [0.1, 0.1, 0.05, 0.05], rtol=1e-5)


def test_first_matching_group_decides():
    variables = two_layers().trainable_variables
    optimizer = SGD(0.1, momentum=0.0)
    groups = [ParameterGroup("bias", learning_rate_scale=0.0), ParameterGroup("second")]
    optimizer.set_parameter_groups(groups)
    optimizer.build(variables)
    assert [rule.learning_rate_scale for rule in optimizer._rules] == [1.0, 0.0, 1.0, 0.0]


def test_constant_learning_rate_ignores_the_schedule():
    """At the last step of the cosine the rate is 0; the group still moves by the peak."""
    variables = two_layers().trainable_variables
    optimizer = SGD(WarmupCosine(0.1, total_steps=10), momentum=0.0)
    optimizer.set_parameter_groups([ParameterGroup("second", constant_learning_rate=True)])
    optimizer.build(variables)
    optimizer.iterations.assign(10)
    before = [v.numpy() for v in variables]
    optimizer.apply(ones(variables), variables)
    moved = [float(b.mean() - v.numpy().mean()) for b, v in zip(before, variables, strict=True)]
    np.testing.assert_allclose(moved, [0.0, 0.0, 0.1, 0.1], atol=1e-6)


def test_decay_of_a_group_overrides_the_exclusion():
    variables = two_layers().trainable_variables
    for variable in variables:
        variable.assign(tf.ones(variable.shape))
    optimizer = SGD(0.1, momentum=0.0, weight_decay=0.5, exclude="1d")
    optimizer.set_parameter_groups(
        [ParameterGroup("first/bias", decay=True), ParameterGroup("second/kernel", decay=False)]
    )
    optimizer.build(variables)
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    means = [float(v.numpy().mean()) for v in variables]
    np.testing.assert_allclose(means, [0.95, 0.95, 1.0, 1.0], rtol=1e-6)


def test_trust_of_a_group_overrides_the_exclusion():
    variables = two_layers().trainable_variables
    optimizer = LARS(0.1)
    optimizer.set_parameter_groups([ParameterGroup("kernel", trust=False)])
    optimizer.build(variables)
    before = variables[0].numpy()
    optimizer.apply(ones(variables), variables)
    np.testing.assert_allclose(before - variables[0].numpy(), 0.1, rtol=1e-5)


def test_exclude_by_regular_expression():
    variables = two_layers().trainable_variables
    optimizer = AdamW(0.1, exclude="second")
    optimizer.build(variables)
    assert [rule.decay for rule in optimizer._rules] == [True, True, False, False]


@pytest.mark.parametrize("make", EVERY)
def test_frozen_group_keeps_its_bits_then_starts_like_new(make):
    """After two frozen steps the variable and its slots are untouched; its third step equals a first step."""
    model = two_layers()
    frozen = model.get_layer("second").kernel
    optimizer, fresh = make(), make()
    optimizer.set_parameter_groups([ParameterGroup("second/kernel", frozen_steps=2)])
    optimizer.build(model.trainable_variables)
    first = frozen.numpy()
    slots = optimizer._slots[2]
    for _ in range(2):
        optimizer.apply(ones(model.trainable_variables), model.trainable_variables)
    np.testing.assert_array_equal(frozen.numpy(), first)
    assert all(not np.any(slot.numpy()) for slot in slots)
    assert np.any(optimizer._slots[0][0].numpy())  # the others did move

    twin = keras.Variable(first)
    fresh.apply([tf.ones(twin.shape)], [twin])
    optimizer.apply(ones(model.trainable_variables), model.trainable_variables)
    np.testing.assert_allclose(frozen.numpy(), twin.numpy(), rtol=1e-6)
    assert not np.array_equal(frozen.numpy(), first)


@pytest.mark.parametrize("make", EVERY)
def test_refused_step_changes_nothing_but_the_counter(make):
    variables = two_layers().trainable_variables
    optimizer = make()
    optimizer.build(variables)
    optimizer.apply(ones(variables), variables)
    before = state(optimizer, variables)
    broken = [gradient * np.nan for gradient in ones(variables)]

    @tf.function
    def step(finite, gradients):
        optimizer.apply_if(finite, gradients, variables)

    step(tf.constant(False), broken)
    assert_same(before, state(optimizer, variables))
    assert int(optimizer.iterations) == 2
    step(tf.constant(True), ones(variables))
    assert not np.array_equal(before[0], variables[0].numpy())
    assert all(np.all(np.isfinite(number)) for number in state(optimizer, variables))


@pytest.mark.parametrize("make", EVERY)
def test_compiled_step_equals_the_plain_one(make):
    """XLA may round differently, hence the tolerance; the refused step is part of the program."""

    def run(jit_compile):
        keras.utils.set_random_seed(1)
        variables, optimizer = two_layers().trainable_variables, make()
        optimizer.build(variables)

        @tf.function(jit_compile=jit_compile)
        def step(finite):
            optimizer.apply_if(finite, ones(variables), variables)

        for finite in (True, False, True):
            step(tf.constant(finite))
        return state(optimizer, variables)

    for plain, compiled in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-6)


def test_none_gradient_leaves_its_variable_alone():
    variables = two_layers().trainable_variables
    optimizer = AdamW(0.1)
    optimizer.build(variables)
    before = variables[0].numpy()
    optimizer.apply([None, *ones(variables)[1:]], variables)
    np.testing.assert_array_equal(variables[0].numpy(), before)
    assert not np.any(optimizer._slots[0][0].numpy())
    with pytest.raises(ValueError, match="at least one variable"):
        optimizer.apply([None] * 4, variables)


def test_weight_decay_follows_its_schedule():
    """With no gradient and lr 1 the weight is multiplied by 1 - wd(step): 0.9, then at half-time 0.5."""
    variable = keras.Variable([[1.0]], dtype="float64")
    optimizer = SGD(1.0, momentum=0.0, weight_decay=CosineRamp(0.1, 0.9, total_steps=4))
    optimizer.build([variable])
    optimizer.apply([tf.zeros((1, 1), tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[0.9]], rtol=1e-6)
    optimizer.iterations.assign(2)
    optimizer.apply([tf.zeros((1, 1), tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[0.45]], rtol=1e-6)


def test_keras_weight_decay_stays_off():
    """Keras would decay once more, before the update and for frozen variables too."""
    assert SGD(0.1, weight_decay=0.5).weight_decay is None


def test_sparse_gradient_equals_the_dense_one():
    table, twin = (keras.Variable(np.ones((3, 2), "float32")) for _ in range(2))
    sparse = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([0, 2]), tf.constant([3, 2]))
    AdamW(0.1).apply([sparse], [table])
    AdamW(0.1).apply([tf.convert_to_tensor(sparse)], [twin])
    np.testing.assert_array_equal(table.numpy(), twin.numpy())
    assert not np.array_equal(table.numpy()[0], table.numpy()[1])


def test_float64_keeps_all_digits():
    """0.1 is not a float32 number: a detour through float32 shows in the eighth digit."""
    variable = keras.Variable([[1.0]], dtype="float64")
    optimizer = SGD(0.1, momentum=0.0, weight_decay=0.3)
    optimizer.set_parameter_groups([ParameterGroup(".*", constant_learning_rate=True)])
    optimizer.build([variable])
    optimizer.apply([tf.constant([[0.7]], tf.float64)], [variable])
    np.testing.assert_allclose(variable.numpy(), [[1.0 - 0.1 * (0.7 + 0.3)]], rtol=1e-15)


def test_half_precision_variable_is_updated_in_float32():
    """In bfloat16 the second moment of 1e-3 gradients, 1e-9, still gives a step of lr."""
    variable = keras.Variable([[1.0]], dtype="bfloat16")
    AdamW(0.25, weight_decay=0.0).apply([tf.constant([[1e-3]], tf.bfloat16)], [variable])
    assert float(variable.numpy()[0, 0]) == 0.75


def test_mixed_precision_model_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = two_layers()
        model.compile(AdamW(0.01), loss="mse", jit_compile=False)
        x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        history = model.fit(x, np.zeros((8, 2)), epochs=3, batch_size=8, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert all(
        slot.dtype in ("float32", "int64") for slots in model.optimizer._slots for slot in slots
    )


def test_variables_hold_all_state():
    """Iteration, learning rate, and for each of four variables two moments and a count."""
    variables = two_layers().trainable_variables
    optimizer = AdamW(0.1)
    optimizer.build(variables)
    assert len(optimizer.variables) == 2 + 3 * 4
    scheduled = AdamW(WarmupCosine(0.1, 10))
    scheduled.build(variables)
    assert len(scheduled.variables) == 1 + 3 * 4


def test_reset_slots():
    variables = two_layers().trainable_variables
    optimizer = AdamW(0.1)
    optimizer.build(variables)
    optimizer.apply(ones(variables), variables)
    optimizer.reset_slots(variables[:1])
    assert all(not np.any(slot.numpy()) for slot in optimizer._slots[0])
    assert all(np.any(slot.numpy()) for slot in optimizer._slots[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0.25, momentum=0.8, nesterov=True, weight_decay=0.5, exclude="gamma"),
        lambda: AdamW(
            WarmupCosine(0.5, 10, 2, end=0.25),
            weight_decay=CosineRamp(0.25, 0.5, 10),
            betas=(0.5, 0.75),
        ),
        lambda: LARS(StepDecay(0.5, [3, 6]), variant="solo", weight_decay=0.125),
        lambda: LAMB(0.5, epsilon=1e-3),
    ],
)
def test_config_round_trip_gives_the_same_steps(make):
    original = make()
    original.set_parameter_groups([ParameterGroup("second", 0.5, frozen_steps=1)])
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(original))
    assert type(copy) is type(original)
    assert copy.get_config() == original.get_config()
    results = []
    for optimizer in (original, copy):
        keras.utils.set_random_seed(1)
        variables = two_layers().trainable_variables
        optimizer.build(variables)
        for _ in range(3):
            optimizer.apply(ones(variables), variables)
        results.append([v.numpy() for v in variables])
    assert_same(*results)


def test_checkpoint_restores_every_slot(tmp_path):
    def run(steps, restore=None):
        keras.utils.set_random_seed(1)
        variables = two_layers().trainable_variables
        optimizer = AdamW(0.1)
        optimizer.build(variables)
        checkpoint = tf.train.Checkpoint(optimizer=optimizer, weights=[v.value for v in variables])
        if restore:
            checkpoint.restore(restore).assert_consumed()
        for _ in range(steps):
            optimizer.apply(ones(variables), variables)
        return checkpoint.save(str(tmp_path / "c")), state(optimizer, variables), optimizer

    _, straight, _ = run(4)
    path, _, _ = run(2)
    _, resumed, optimizer = run(2, restore=path)
    assert_same(straight, resumed)
    assert int(optimizer.iterations) == 4


def test_keras_save_and_load(tmp_path):
    model = two_layers()
    model.compile(AdamW(0.01), loss="mse", jit_compile=False)
    x, y = np.ones((4, 4), "float32"), np.zeros((4, 2), "float32")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(state(model.optimizer, model.weights), state(loaded.optimizer, loaded.weights))


def test_learning_rate_can_be_set():
    variable = keras.Variable([[1.0]])
    optimizer = SGD(0.5, momentum=0.0)
    optimizer.build([variable])
    optimizer.learning_rate = 0.25
    optimizer.apply([tf.ones((1, 1))], [variable])
    assert float(variable.numpy()[0, 0]) == 0.75


def test_groups_errors():
    variables = two_layers().trainable_variables
    optimizer = SGD(0.1)
    optimizer.set_parameter_groups([ParameterGroup("predictor")])
    with pytest.raises(ValueError, match="Received: pattern='predictor'"):
        optimizer.build(variables)
    optimizer = SGD(0.1)
    optimizer.build(variables)
    optimizer.set_parameter_groups([])  # nothing changes: allowed
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.set_parameter_groups([ParameterGroup("first")])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([tf.ones(1)], [keras.Variable([1.0])])
    scheduled = SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))
    with pytest.raises(ValueError, match="attribute `peak`"):
        scheduled.set_parameter_groups([ParameterGroup("x", constant_learning_rate=True)])
    with pytest.raises(ValueError, match="pattern='\\('"):
        ParameterGroup("(")
    with pytest.raises(ValueError, match="learning_rate_scale=-1"):
        ParameterGroup("x", learning_rate_scale=-1)
    with pytest.raises(ValueError, match="frozen_steps=-1"):
        ParameterGroup("x", frozen_steps=-1)
