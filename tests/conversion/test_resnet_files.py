"""SimCLR's and BYOL's ResNets out of the containers that their authors wrote."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import checkpoints
from keras_ssl.conversion import LAYOUTS, convert
from keras_ssl.conversion.references import numpy_resnets
from keras_ssl.conversion.simclr import GRAPH, read_saved_model
from tests.conversion import fixtures, resnet_rows

TOLERANCE = 1e-4  # of the largest number; measured: about 1e-6


def relative(got, expected):
    return np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def tf1_checkpoint(tmp_path_factory):
    """A checkpoint as TF1's Saver writes it: encoder, its average, slots, heads and the step."""
    shapes = fixtures.simclr_shapes((1, 1), (4, 6))
    encoder, average = (fixtures.random_tensors(shapes, seed) for seed in (1, 2))
    values = {f"base_model/{key}": value for key, value in encoder.items()}
    values |= {f"{key}/Momentum": value * 0 for key, value in values.items()}
    values |= {f"ema_model/base_model/{key}": value for key, value in average.items()}
    values["head_contrastive/nl_0/dense/kernel"] = np.ones((24, 24), np.float32)
    values["head_contrastive/nl_0/batch_normalization/gamma"] = np.ones(24, np.float32)
    values["head_supervised/linear_layer/dense/bias"] = np.ones(10, np.float32)
    values["global_step"] = np.array(250228, np.int64)
    prefix = str(tmp_path_factory.mktemp("simclr") / "model.ckpt-250228")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
            for name, value in values.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, prefix)
    read = checkpoints.read(prefix).tree
    assert set(read) == set(values)
    return read, encoder, average


@pytest.mark.parametrize("which", ["base", "average", "without a scope"])
def test_simclr_from_a_tf1_checkpoint_file(tf1_checkpoint, which):
    read, encoder, average = tf1_checkpoint
    layout = LAYOUTS["simclr_tf1_ema" if which == "average" else "simclr_tf1"]
    if which == "without a scope":
        inside = {k: v for k, v in read.items() if k.startswith("base_model/")}
        read = {key.removeprefix("base_model/"): value for key, value in inside.items()}
    network = resnet_rows.simclr_network((1, 1), (4, 6))
    certificate = convert(read, network, layout)
    assert certificate["tensors_used"] + len(certificate["left_out"]) == len(read)
    images = fixtures.pictures(40)
    chosen = average if which == "average" else encoder
    expected = numpy_resnets.simclr(chosen, images, (1, 1))["features"]
    assert relative(network(images)["features"], expected) < TOLERANCE


@pytest.mark.parametrize(
    ("layout", "scope", "other"),
    [
        ("simclr_tf1_ema", "base_model/", "simclr_tf1"),
        ("simclr_tf1", "ema_model/base_model/", "simclr_tf1_ema"),
    ],
)
def test_the_average_is_never_taken_for_the_encoder_nor_the_reverse(layout, scope, other):
    tensors = fixtures.random_tensors(fixtures.simclr_shapes((1,), (4,)))
    given = {f"{scope}{key}": value for key, value in tensors.items()}
    network = resnet_rows.simclr_network((1,), (4,))
    with pytest.raises(ValueError, match=f"Received: one with '{scope}' only.* {other!r} for that"):
        convert(given, network, LAYOUTS[layout])
    assert convert(given, network, LAYOUTS[other])["tensors_used"] == len(tensors)


def test_simclr_tf2_needs_the_object_graph_where_names_do_not_say_enough(tmp_path):
    """The checkpoint calls a kernel `trainable_variables_list/7`; only the graph knows whose it is."""
    pytest.importorskip("tf_keras", reason="tf_keras is not installed; it makes the reference")
    from tests.conversion import keras2_simclr

    model = keras2_simclr.filled_model((1, 1), (4, 6))
    tensors = read_saved_model(keras2_simclr.write_checkpoint(model, tmp_path / "model"))
    assert any(key.startswith("trainable_variables_list/") for key in tensors)
    network = resnet_rows.simclr_network((1, 1), (4, 6))
    without = {key: value for key, value in tensors.items() if key != GRAPH}
    with pytest.raises(ValueError, match="without 27 of them"):
        convert(without, network, LAYOUTS["simclr_tf2"])
    as_array = {**tensors, GRAPH: np.array([tensors[GRAPH]], dtype=object)}
    convert(as_array, network, LAYOUTS["simclr_tf2"])
    with pytest.raises(ValueError, match="none with both"):
        other = tf.train.Checkpoint(a=tf.Variable(1.0)).write(str(tmp_path / "other"))
        convert(read_saved_model(other), network, LAYOUTS["simclr_tf2"])


@pytest.mark.slow
def test_simclr_from_a_saved_model_folder(tmp_path):
    """Saved by Keras 2 with all its functions and lists; features are those that the SavedModel itself serves."""
    pytest.importorskip("tf_keras", reason="tf_keras is not installed; it makes the reference")
    from tests.conversion import keras2_simclr

    model = keras2_simclr.filled_model((1, 1), (4, 6), selective=True)
    keras2_simclr.save(model, tmp_path / "saved_model")
    network = resnet_rows.simclr_network((1, 1), (4, 6), selective=True)
    certificate = convert(
        read_saved_model(tmp_path / "saved_model"), network, LAYOUTS["simclr_tf2"]
    )
    assert certificate["tensors_used"] == len(network.variables)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    images = fixtures.pictures(50)
    expected = served(images, trainable=False)["final_avg_pool"].numpy()
    assert relative(network(images)["features"], expected) < TOLERANCE


@pytest.mark.parametrize("style", ["names", "places", "bare", "counted"])
def test_byol_under_the_names_that_a_reader_may_give(style):
    """Fields by name or by place, the network alone, or with a counter on the stem; the teacher is never taken."""
    tensors, network, expected = resnet_rows.byol((1, 1), (4, 6))
    online = {
        key.removeprefix("online_params.").removeprefix("online_state."): value
        for key, value in tensors.items()
    }
    path = {"names": ("online_params", "target_params"), "places": ("0", "1")}.get(style)
    if path:
        given = {
            f"experiment_state.{path[0]}.{key}".replace("/w", ".w"): v for key, v in online.items()
        }
        given |= {f"experiment_state.{path[1]}.{key}": v + 9 for key, v in online.items()}
        given |= {
            f"experiment_state.{path[0]}.projector/linear.w": np.zeros((2, 2)),
            "step": np.array(3),
        }
        given["experiment_state.opt_state.0.trace"] = np.zeros(3)
    elif style == "counted":
        given = {k.replace("/initial_conv/", "/initial_conv_1/"): v for k, v in online.items()}
    else:
        given = {key.removeprefix("res_net50/~/"): value for key, value in online.items()}
    convert(given, network, LAYOUTS["byol_haiku"])
    images = fixtures.pictures(40)
    assert relative(network(images)["features"], expected(images)["features"]) < TOLERANCE
