"""Heads of published checkpoints: the same numbers, sizes read from the file, one network with the encoder."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones
from keras_ssl.backbones import EncoderWithHead, ProjectionHead, ResNet
from keras_ssl.conversion import HEADS, LAYOUTS, build_head, convert, extract, read_head
from tests.conversion import fixtures, head_rows, parity

ROWS = parity.rows("head_rows")
TOLERANCE = 1e-4  # measured: under 1e-6


@pytest.mark.parametrize("row", [row.parameter for row in ROWS])
def test_outputs_equal_the_reference(row):
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it makes the reference")
    measured = parity.measure(row)
    assert measured["relative"] < TOLERANCE
    assert measured["tensors"] == measured["variables"]


def test_there_is_a_row_for_every_kind():
    assert {row.layout for row in ROWS} == {f"{kind}_head" for kind in HEADS}
    assert {f"{kind}_head" for kind in HEADS} <= set(LAYOUTS)


@pytest.mark.parametrize("kind", head_rows.SIZES)
def test_sizes_are_read_from_the_file(kind):
    """Widths, prototypes and sets; then back: PyTorch loads what is extracted strictly."""
    torch = pytest.importorskip("torch", reason="torch is not installed; it makes the reference")
    tensors, expected = head_rows.checkpoint(kind)
    encoder = {"conv1.weight": np.zeros((4, 3, 7, 7)), "layer1.0.bn1.num_batches_tracked": 3}
    head, certificate = read_head(kind, {**encoder, **tensors})
    assert head.settings["widths"] == list(head_rows.SIZES[kind]["widths"])
    assert head.settings["prototypes"] == list(head_rows.SIZES[kind].get("prototypes", ()))
    assert set(encoder) <= set(certificate["left_out"])
    x = head_rows.vectors(5)
    got, wanted = head(x), expected(x)
    np.testing.assert_allclose(got["projection"], wanted["projection"], rtol=1e-4, atol=1e-5)
    back = extract(head, LAYOUTS[f"{kind}_head"])
    module = head_rows.module(kind)[0]
    whole = {key.removeprefix("head."): torch.tensor(value) for key, value in back.items()}
    module.load_state_dict(whole, strict=True)
    for key, value in back.items():
        np.testing.assert_array_equal(value, tensors[key.removeprefix("head.")])


def test_simclr_head_is_read_from_the_file():
    tensors, expected = head_rows.simclr_checkpoint((10, 10, 6))
    head, _ = read_head("simclr", tensors)
    x = head_rows.vectors(5)
    got = head(x)["projection"]
    np.testing.assert_allclose(got, expected(x)["projection"], rtol=1e-4, atol=1e-5)


def test_dino_head_with_batch_norm():
    """The authors' option `use_bn_in_head` moves the numbers of the layers."""
    tensors = fixtures.random_tensors(
        {
            **{"head.mlp.0.weight": (12, 10), "head.mlp.0.bias": (12,)},
            **{f"head.mlp.1.{name}": (12,) for name in fixtures.NORM},
            **{"head.mlp.3.weight": (6, 12), "head.mlp.3.bias": (6,)},
            **{"head.last_layer.weight_g": (8, 1), "head.last_layer.weight_v": (8, 6)},
        }
    )
    head, certificate = read_head("dino", tensors)
    assert head.settings["hidden_norm"] and certificate["tensors_used"] == len(tensors)


def test_moco_v3_of_a_transformer_calls_it_head():
    pytest.importorskip("torch", reason="torch is not installed; it makes the reference")
    tensors, _ = head_rows.checkpoint("moco_v3")
    named = {key.replace("fc.", "head."): value for key, value in tensors.items()}
    first, second = (read_head("moco_v3", given)[1] for given in (named, tensors))
    assert (first["tensors_used"], first["sha256"]) == (8, second["sha256"])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("swav", {"projection_head.3.weight": (128, 2048), "prototypes.weight": (3000, 128)}),
        ("deepclusterv2", {"prototypes.prototypes2.weight": (3000, 128)}),
        ("dino", {"head.mlp.4.weight": (256, 2048), "head.last_layer.weight_g": (65536, 1)}),
        ("moco_v1", {"fc.weight": (128, 2048), "fc.bias": (128,)}),
        ("moco_v2", {"fc.0.weight": (2048, 2048), "fc.2.weight": (128, 2048)}),
        ("moco_v3", {"fc.3.weight": (256, 4096), "fc.4.running_var": (256,)}),
        (
            "simsiam",
            {"fc.6.weight": (2048, 2048), "fc.6.bias": (2048,), "fc.7.running_mean": (2048,)},
        ),
    ],
)
def test_released_sizes(kind, names):
    found = {
        key: value.shape
        for key, value in extract(build_head(kind), LAYOUTS[f"{kind}_head"]).items()
    }
    assert {key: found.get(key) for key in names} == names


def test_a_tensor_of_the_head_that_has_no_place_is_refused():
    tensors, _ = head_rows.simclr_checkpoint()
    head, _ = read_head("simclr", tensors)
    odd = {**tensors, "head_contrastive/nl_3/dense/bias": np.zeros(6, np.float32)}
    with pytest.raises(ValueError, match="1 more: 'head_contrastive/nl_3/dense/bias'"):
        convert(odd, head, LAYOUTS["simclr_head"])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: build_head("mocov2"), "Did you mean 'moco_v2'"),
        (lambda: read_head("swav", {"fc.weight": np.zeros((2, 2))}), "Received: 1 tensors, none"),
        (lambda: ProjectionHead(4, (2,), prototype_kind="cosine"), "prototype_kind='cosine'"),
        (
            lambda: EncoderWithHead(small_encoder(), ProjectionHead(5, (2,))),
            "features of length 16. Received: feature_dim=5",
        ),
        (lambda: extract(small_encoder(), LAYOUTS["swav_head"]), "Received: ResNet"),
    ],
)
def test_wrong_calls(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def small_encoder():
    return ResNet((1,), filters=(4,), image_size=32)


@pytest.mark.parametrize("kind", ["swav", "deepclusterv2", "dino", "moco_v2"])
def test_encoder_with_head(kind, tmp_path):
    """Everything the encoder returns and what the head makes of it; saved and loaded; trained in one piece."""
    settings = head_rows.SIZES[kind]
    head = build_head(kind, 16, **settings)
    network = EncoderWithHead(small_encoder(), head)
    images = fixtures.pictures(32, batch=3)
    result, plain = network(images), network.encoder(images)
    np.testing.assert_array_equal(result["features"], plain["features"])
    np.testing.assert_array_equal(result["projection"], head(plain["features"])["projection"])
    sets = settings.get("prototypes", ())
    scores = result.get("scores", ())
    shapes = [s.shape for s in (scores if isinstance(scores, tuple) else (scores,))]
    assert shapes == [(3, count) for count in sets]
    assert (network.feature_dim, network.image_size) == (16, 32)

    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images)["projection"], result["projection"])
    with tf.GradientTape() as tape:
        output = network(images, training=True)
        parts = tf.nest.flatten([output.get("scores", ()), output["projection"]])
        loss = sum(tf.reduce_sum(part[:, 0]) for part in parts)
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    assert all(gradient is not None for gradient in gradients)


def test_encoder_with_head_in_half_precision_and_exported():
    from keras_ssl.export.saved_model import float32_copy

    encoder = ResNet((1,), filters=(4,), image_size=32, dtype="mixed_bfloat16")
    head = build_head("swav", 16, **head_rows.SIZES["swav"], dtype="mixed_bfloat16")
    network = EncoderWithHead(encoder, head)
    result = network(fixtures.pictures(32))
    assert result["projection"].dtype == tf.bfloat16 and result["scores"].dtype == tf.float32
    copy = float32_copy(network)
    assert copy(fixtures.pictures(32))["projection"].dtype == tf.float32
    assert backbones.EncoderWithHead is EncoderWithHead
