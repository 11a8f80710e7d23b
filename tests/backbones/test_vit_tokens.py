"""ViT with registers, rotary positions, gated perceptrons: what each token is, and that nothing else suffers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.backbones import ViT
from keras_ssl.layers import rope_periods, rope_rotation, rotate

WIDTH, DEPTH, HEADS, PATCH, SIZE = 16, 2, 2, 4, 16
PATCHES = (SIZE // PATCH) ** 2
DINOV2 = {"num_registers": 4, "layer_scale": 1e-5, "position_antialias": True}
DINOV3 = {
    "num_registers": 4,
    "positions": "rope",
    "ffn": "swiglu",
    "qkv_bias": "query_value",
    "layer_norm_epsilon": 1e-5,
    "layer_scale": 1e-5,
}
KINDS = {"dinov2": DINOV2, "dinov3": DINOV3}
KEEP = np.array([[5, 0, 9], [15, 3, 2]], "int32")


def tiny(**settings):
    """A small ViT with variables that all matter."""
    defaults = {"patch_size": PATCH, "image_size": SIZE, "dtype": "float64"}
    model = ViT(WIDTH, DEPTH, HEADS, **{**defaults, **settings})
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        center = 1.0 if "gamma" in variable.path or "scale" in variable.path else 0.0
        variable.assign(rng.normal(center, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return tiny(**KINDS[request.param], use_mask_token=True)


def pictures(count=2, size=(SIZE, SIZE), dtype="float64"):
    return np.random.default_rng(1).uniform(size=(count, *size, 3)).astype(dtype)


def test_order_of_tokens(model):
    images = pictures()
    first = model.embed(images).numpy()
    assert first.shape == (2, 1 + 4 + PATCHES, WIDTH) and model.num_prefix_tokens == 5
    np.testing.assert_array_equal(first[0, 1:5], model.registers.numpy()[0])
    y = model(images, output="layers")
    assert [layer.shape for layer in y["layers"]] == [(2, 21, WIDTH)] * DEPTH
    np.testing.assert_array_equal(y["layers"][-1][:, 0], y["features"])
    np.testing.assert_array_equal(y["layers"][-1][:, 5:], y["tokens"])
    assert model(images, output="attention")["attention"].shape == (2, HEADS, 21, 21)


def test_registers_have_no_position(model):
    """Not even on images of another size, where the table is another one."""
    for size in ((SIZE, SIZE), (8, 24)):
        first = model.embed(pictures(size=size)).numpy()
        np.testing.assert_array_equal(first[1, 1:5], model.registers.numpy()[0])


def test_registers_are_read():
    model = tiny(**DINOV2)
    before = model(pictures())["tokens"].numpy()
    model.registers.assign(model.registers.numpy()[..., ::-1])
    assert np.abs(model(pictures())["tokens"] - before).max() > 1e-3


def test_mean_of_the_patches_leaves_registers_out():
    y = tiny(**DINOV2, pooling="mean")(pictures())
    np.testing.assert_allclose(y["features"], np.mean(y["tokens"], 1), rtol=1e-12)


def test_kept_patches_keep_their_place(model):
    images = pictures()
    everything = np.stack([np.arange(PATCHES), np.arange(PATCHES)[::-1]]).astype("int32")
    whole, y = model(images), model(images, keep=everything)
    np.testing.assert_allclose(y["tokens"][0], whole["tokens"][0], rtol=1e-9)
    np.testing.assert_allclose(y["tokens"][1], whole["tokens"][1][::-1], rtol=1e-9)
    some, turned = model(images, keep=KEEP), model(images, keep=KEEP[:, ::-1])
    np.testing.assert_allclose(turned["tokens"], some["tokens"][:, ::-1], rtol=1e-9)
    np.testing.assert_allclose(turned["features"], some["features"], rtol=1e-9)
    alone = model(images[1:], keep=KEEP[1:])
    np.testing.assert_allclose(alone["tokens"][0], some["tokens"][1], rtol=1e-9)


def test_turning_of_kept_patches_is_that_of_their_own_place():
    """One block, with attention over the kept patches only, worked out from the rotation of the whole grid."""
    model = ViT(8, 1, 2, patch_size=PATCH, image_size=SIZE, dtype="float64", positions="rope")
    images = pictures(1)
    keep = np.array([[14, 3]], "int32")
    x = model.embed(images, keep=keep)
    rotation = [v.numpy() for v in rope_rotation(model.rope_periods.value, (4, 4))]
    chosen = tuple(tf.constant(v[[14, 3]]) for v in rotation)
    expected = model.norm(model.blocks[0](x, rotation=chosen))
    np.testing.assert_allclose(model(images, keep=keep)["tokens"], expected[:, 1:], rtol=1e-12)
    wrong = tuple(tf.constant(v[[0, 1]]) for v in rotation)
    assert np.abs(model.norm(model.blocks[0](x, rotation=wrong)) - expected).max() > 1e-6


def test_masked_patches_are_not_seen(model):
    mask = np.zeros((2, PATCHES), bool)
    mask[0, 3] = mask[1, [7, 8]] = True
    images = pictures()
    changed = images.copy()
    changed[0, 0:4, 12:16] = 0.9  # patch 3: row 0, column 3
    y = model(images, mask=mask)
    np.testing.assert_array_equal(model(changed, mask=mask)["tokens"], y["tokens"])
    assert np.abs(y["tokens"] - model(images)["tokens"]).max() > 1e-3


def test_rotation_by_hand():
    """Heads of 8: periods 1 and 10. Two rows, one column: rows at -0.5 and 0.5, the column at 0."""
    np.testing.assert_allclose(rope_periods(8), [1.0, 10.0])
    sine, cosine = rope_rotation(tf.constant(rope_periods(8)), (2, 1))
    a, b = -np.pi, -np.pi / 10  # 2 pi * -0.5 / period
    np.testing.assert_allclose(sine[0], [np.sin(a), np.sin(b), 0, 0] * 2, atol=1e-12)
    np.testing.assert_allclose(cosine[1], [np.cos(a), np.cos(b), 1, 1] * 2, atol=1e-12)
    x = tf.reshape(tf.range(1.0, 9.0), (1, 1, 1, 8))
    quarter = tf.ones((1, 8)), tf.zeros((1, 8))
    np.testing.assert_allclose(rotate(x, quarter)[0, 0, 0], [-5, -6, -7, -8, 1, 2, 3, 4])


def test_rotation_is_relative_and_spares_the_tokens_in_front():
    """The product of a turned query and a turned key depends on how far apart they are, not on where."""
    rng = np.random.default_rng(0)
    query, key = (np.tile(rng.normal(size=(1, 1, 1, 12)), (1, 1, 17, 1)) for _ in range(2))
    rotation = rope_rotation(tf.constant(rope_periods(12)), (4, 4))
    q, k = (rotate(tf.constant(x), rotation).numpy()[0, 0] for x in (query, key))
    np.testing.assert_array_equal(q[0], query[0, 0, 0])
    products = q[1:] @ k[1:].T
    np.testing.assert_allclose(products[0, 6], products[9, 15])  # one row down, two columns right
    assert abs(products[0, 6] - products[0, 9]) > 1e-6
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), np.linalg.norm(query[0, 0], axis=-1))


def test_wide_pictures_have_coordinates_of_their_own():
    """Each axis goes from -1 to 1: the corners of any grid with equal sides in patches have equal angles."""
    model = tiny(**DINOV3)
    assert model(pictures(size=(8, 28)))["tokens"].shape == (2, 14, WIDTH)
    periods = tf.constant(rope_periods(8))
    wide, high = rope_rotation(periods, (2, 6)), rope_rotation(periods, (6, 2))
    rows, columns = np.s_[..., :2], np.s_[..., 2:4]
    np.testing.assert_allclose(wide[0][0][rows], high[0][0][columns])
    np.testing.assert_allclose(wide[0][0][columns], high[0][0][rows])


def test_gradient_reaches_every_trainable_variable(model):
    mask = np.zeros((2, PATCHES), bool)
    mask[:, 2:5] = True
    with tf.GradientTape() as tape:
        y = model(pictures(), training=True, mask=mask)
        loss = tf.reduce_sum(y["features"] ** 3) + tf.reduce_sum(y["tokens"] ** 3)
    values = [v.value for v in model.trainable_variables]
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, values), strict=True
    ):
        assert gradient is not None and np.abs(gradient).max() > 0, variable.path
    assert all(v.name == "rope_periods" for v in model.non_trainable_variables)


def test_recomputed_and_dropped_branches_are_the_same():
    """Drop-path by sample, blocks computed again: the gradients of the plain network."""
    images, keys = pictures(4), random.sample_keys(0, tf.range(4, dtype=tf.int64))
    keep, results = np.tile(KEEP, (2, 1)), []
    for recompute in (False, True):
        model = tiny(**DINOV3, drop_path=0.5, recompute=recompute)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True, keys=keys, keep=keep)["tokens"])
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        results.append([gradient.numpy() for gradient in gradients])
    for plain, again in zip(*results, strict=True):
        np.testing.assert_allclose(again, plain, atol=1e-12 * max(1.0, np.abs(plain).max()))
    whole = model(images, training=True, keys=keys)["features"].numpy()
    part = model(images[1:3], training=True, keys=keys[1:3])["features"]
    np.testing.assert_allclose(part, whole[1:3], rtol=1e-9)
    assert np.abs(whole - model(images)["features"]).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    settings = {**DINOV3, "use_mask_token": True}
    model, exact = tiny(dtype=policy, **settings), tiny(**settings)
    exact.set_weights(model.get_weights())
    images = pictures(size=(8, 24), dtype="float32")
    mask = np.zeros((2, 12), bool)
    mask[:, 1] = True
    keep = np.array([[1, 2], [3, 1]], "int32")
    y = model(images, mask=mask, keep=keep, output="attention")
    expected = exact(images.astype("float64"), mask=mask, keep=keep)
    assert {value.dtype for value in y.values()} == {tf.as_dtype(model.compute_dtype)}
    assert {v.dtype for v in model.variables} == {"float32"}
    difference = np.abs(tf.cast(y["features"], "float64") - expected["features"]).max()
    assert difference < 0.05 * np.abs(expected["features"]).max()


@pytest.mark.parametrize("kind", KINDS)
def test_clone_and_saving(kind, tmp_path):
    model = tiny(**KINDS[kind], position_size=24, use_mask_token=True)
    clone = ViT.from_config(model.get_config())
    assert clone.get_config() == model.get_config()
    assert [v.path for v in clone.variables] == [v.path for v in model.variables]
    if model.rope_periods is not None:
        model.rope_periods.assign(model.rope_periods * 1.5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(pictures())["tokens"], model(pictures())["tokens"])


def test_configs_from_before_still_build_the_same_network():
    model = tiny()
    new = set(DINOV3) | {"position_size", "position_antialias"}
    config = {k: v for k, v in model.get_config().items() if k not in new - {"positions"}}
    config.pop("layer_scale", None)
    old = ViT.from_config(config)
    assert [v.path for v in old.variables] == [v.path for v in model.variables]
    old.set_weights(model.get_weights())
    np.testing.assert_array_equal(old(pictures())["tokens"], model(pictures())["tokens"])


def test_graph_with_unknown_batch_and_unknown_number_of_kept_patches():
    model = tiny(**DINOV3, use_mask_token=True)
    specs = [
        tf.TensorSpec((None, SIZE, SIZE, 3), tf.float64),
        tf.TensorSpec((None, None), tf.int32),
    ]
    call = tf.function(lambda x, keep: model(x, keep=keep)["tokens"], input_signature=specs)
    expected = model(pictures(), keep=KEEP)["tokens"]
    np.testing.assert_allclose(call(pictures(), KEEP), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_registers": -1}, "num_registers=-1"),
        ({"positions": "rope", "num_heads": 8}, "width=16, num_heads=8"),
        ({"ffn": "glu"}, "ffn='glu'"),
        ({"qkv_bias": "key"}, "qkv_bias='key'"),
        ({"position_size": 18}, "position_size=18, patch_size=4"),
        ({"pooling": "token_then_norm"}, "pooling='token_then_norm'"),
    ],
)
def test_wrong_settings(settings, match):
    arguments = {"width": WIDTH, "depth": 1, "num_heads": HEADS, "patch_size": PATCH}
    with pytest.raises(ValueError, match=match):
        ViT(**{**arguments, "image_size": SIZE, **settings})


def test_heads_of_odd_width_cannot_turn():
    with pytest.raises(ValueError, match="Received: 6 channels"):
        rope_periods(6)
