"""What every method promises, one table row each; one compiled step a method is shared by the tests."""

from __future__ import annotations

import dataclasses
import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import optimizers
from keras_ssl import views as view_recipes
from keras_ssl.methods import METHODS, RunInfo, SSLModel, get_method
from tests.contract.rows import BATCH, ROWS, SIZE, bind, build, images


def batch_of(model, seed=0):
    return {
        "inputs": {"image": tf.constant(images(BATCH, seed))},
        "position": tf.range(BATCH, dtype=tf.int64),
    }


@dataclasses.dataclass
class Trained:
    """A method after one step, with what it was before."""

    model: SSLModel
    batch: dict
    views: dict
    before: dict[int, np.ndarray]
    loss_before: float
    logs: dict[str, float]
    after: dict[int, np.ndarray]


def snapshot(model) -> dict[int, np.ndarray]:
    return {id(variable): variable.numpy().copy() for variable in model.variables}


@pytest.fixture(scope="module", params=list(ROWS))
def trained(request) -> Trained:
    model = bind(build(request.param, optimizer=optimizers.SGD(0.01, momentum=0.0)))
    batch = batch_of(model)
    views = model.make_views(batch)
    before = snapshot(model)
    step = tf.function(model.train_step)
    logs = {name: float(value) for name, value in step(batch).items()}
    trained = Trained(model, batch, views, before, logs["loss"], logs, snapshot(model))
    trained.step = step
    return trained


def test_every_method_has_a_row():
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_is_a_keras_model_with_its_own_train_step(name):
    method = get_method(name)
    assert issubclass(method, keras.Model) and issubclass(method, SSLModel)
    assert "train_step" in vars(method) and method.__mro__[1] is SSLModel
    body = inspect.getsource(method.train_step).splitlines()
    assert 3 <= len(body) - 1 <= 8
    assert method.view_spec and set(method.recipes) == {"small", "large"}
    for section in (
        "Args:",
        "Views:",
        "Metrics:",
        "Example:",
        "Reference:",
        "Reference code:",
        "Differs",
    ):
        assert section in method.__doc__, section


def test_one_step_gives_finite_scalars(trained):
    assert {"loss", "gradient_norm", "embedding_std"} <= set(trained.logs)
    assert all(math.isfinite(value) for value in trained.logs.values())
    assert trained.logs["gradient_norm"] > 0
    assert int(trained.model.step) == 1


def test_every_student_variable_learns_and_no_other(trained):
    model = trained.model
    frozen = [group.pattern for group in model.parameter_groups if group.frozen_steps]
    with tf.GradientTape() as tape:
        loss, _ = model.loss(model.embed(trained.views, training=True), trained.views)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        held = any(pattern in variable.path for pattern in frozen)
        old, new = trained.before[id(variable)], trained.after[id(variable)]
        moved = not np.allclose(
            old, new, rtol=1e-6, atol=0
        )  # prototypes are made unit again each step
        nothing = float(tf.reduce_max(tf.abs(gradient))) == 0.0
        assert moved == (not held and not nothing), variable.path
    assert sum(v.path.count("kernel") for v in model.trainable_variables) > 3


def test_teacher_starts_equal_and_follows_the_formula(trained):
    model = trained.model
    if not model.ema_pairs:
        assert "teacher" not in "".join(v.path for v in model.variables)
        return
    before, after = trained.before, trained.after
    momentum = float(model.teacher_momentum_at(tf.constant(0, tf.int64)))
    assert momentum == pytest.approx(0.9)
    for teacher, student in model.ema_pairs:
        assert not teacher.trainable_variables and teacher.trainable
        trainable = {id(v) for v in student.trainable_variables}
        for target, source in zip(teacher.variables, student.variables, strict=True):
            np.testing.assert_array_equal(before[id(target)], before[id(source)])
            if id(source) in trainable:
                expected = momentum * before[id(target)] + (1 - momentum) * after[id(source)]
                np.testing.assert_allclose(after[id(target)], expected, rtol=1e-5, atol=1e-7)


def test_state_changes_as_stated(trained):
    model, before, after = trained.model, trained.before, trained.after
    embedded = model.embed(trained.views, training=True)
    if model.name == "swav":
        assert np.all(after[id(model.queues[0]._rows)] == 0)  # it begins to fill at step 1
        np.testing.assert_allclose(
            np.linalg.norm(before[id(model.prototypes.kernel)], axis=1), 1.0, rtol=1e-5
        )
    elif model.name == "dino":
        assert np.all(before[id(model.center._center)] == 0)
        assert np.abs(after[id(model.center._center)]).max() > 0
        assert embedded["teacher_logits"].shape == (BATCH, 2, 24)
    else:
        names = {v.path for v in model.non_trainable_variables}
        assert not any("queue" in name or "center" in name for name in names)


def test_test_step_changes_nothing(trained):
    before = snapshot(trained.model)
    logs = trained.model.test_step(trained.batch)
    assert math.isfinite(float(logs["loss"]))
    after = snapshot(trained.model)
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_eager_equals_graph(trained):
    model = trained.model
    call = lambda: model.loss(model.embed(trained.views, training=False), trained.views)[0]  # noqa: E731
    np.testing.assert_allclose(float(call()), float(tf.function(call)()), rtol=2e-4)


def test_saved_and_loaded_it_gives_the_same_features(trained, tmp_path):
    model = trained.model
    path = tmp_path / "method.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, compile=False)
    pictures = tf.constant(images(4, seed=3), tf.float32) / 255.0
    np.testing.assert_allclose(loaded(pictures), model(pictures), rtol=1e-5, atol=1e-6)
    assert loaded.run == model.run
    old, new = model.get_config(), loaded.get_config()
    assert {k: v for k, v in old.items() if k != "backbone"} == {
        k: v for k, v in new.items() if k != "backbone"
    }
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.thorough if name == "dino" else ()) for name in ROWS],
)
def test_one_repeated_batch_is_learned(name):
    """Through `fit`, from a plain dataset of images; what falls is named in the row."""
    row = ROWS[name]
    model = build(name, learning=True)
    dataset = tf.data.Dataset.from_tensors(images(BATCH)).repeat(20)
    # the same views in every step: positions are step x batch + row, so the engine is given fixed keys
    engine = model.view_engine
    keys = tf.constant(np.arange(2 * BATCH).reshape(BATCH, 2), tf.uint32)
    model.view_engine = lambda image, _, aspect=None: {**engine(image, keys, aspect), "keys": keys}
    history = model.fit(dataset, epochs=2, verbose=0)
    assert int(model.step) == 40
    assert model.run == RunInfo(20 * BATCH, 20, 40, BATCH, 1)
    first, last = history.history[row.falls]
    assert last < first


def test_user_data_in_other_forms():
    model = build("rotnet")
    pictures = images(3 * BATCH)
    model.fit(pictures, batch_size=BATCH, epochs=1, verbose=0)
    assert int(model.step) == 3
    labelled = tf.data.Dataset.from_tensor_slices((pictures, np.zeros(len(pictures)))).batch(BATCH)
    model.fit(labelled, epochs=1, verbose=0)
    assert int(model.step) == 6
    with pytest.raises(ValueError, match=r"Expected images \(samples, height, width, 3\)"):
        model.fit(np.zeros((4, 4)), verbose=0)
    endless = labelled.repeat()
    with pytest.raises(ValueError, match="steps_per_epoch"):
        build("rotnet").fit(endless, verbose=0)
    with pytest.raises(ValueError, match="at least one batch"):
        build("rotnet").fit(labelled.take(0), verbose=0)


def test_views_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rotnet_cifar"):
        model = build("simclr")
        model.compile("adam", views="rotnet_cifar")


def test_half_precision_policies_see_exact_images():
    """Images are rounded by the backbone's own layers only, also when the method itself is called."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build("simclr")
        seen = []
        normalize = model.backbone.normalize
        model.backbone.normalize = lambda images: seen.append(images.dtype) or normalize(images)
        model(tf.constant(images(2), tf.float32) / 255.0)
        assert seen and all(dtype == tf.float32 for dtype in seen)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ROWS)
def test_without_views_it_takes_its_small_recipe_in_the_backbones_size(name):
    model = build(name)
    model.compile("adam")
    recipe = model.view_engine.recipe
    assert recipe.name.rstrip("+") == type(model).recipes["small"]
    assert view_recipes.main_size(recipe) == model.backbone.image_size == SIZE
    assert isinstance(model.optimizer, keras.optimizers.Adam)
