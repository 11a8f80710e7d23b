"""The gradient of a step: of the whole batch at once, or with networks that see one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_ssl.distribution import num_replicas
from keras_ssl.layers import BatchNormalization, deferred_statistics
from keras_ssl.methods.micro_batch import PiecewiseViews, Tensors, comes_in_pieces

if TYPE_CHECKING:
    from keras_ssl.methods.base import SSLModel

LossFunction = Callable[[Tensors, Mapping[str, tf.Tensor]], tuple[tf.Tensor, Tensors]]


def embed(model: SSLModel, views: Mapping[str, tf.Tensor], training: bool) -> Tensors:
    """Returns `model.embed` of the whole batch, computed in pieces if the views come in pieces."""
    if not comes_in_pieces(views):
        return model.embed(views, training=training)
    layers = []  # not annotated: AutoGraph cannot convert functions that share an annotated name

    def of_piece(index: tf.Tensor) -> tuple[Tensors, Any]:
        with deferred_statistics() as records:
            embedded = model.embed(views.piece(index), training=training)
        layers[:] = [layer for layer, _, _ in records]
        for name, x in embedded.items():
            if x.shape.rank == 0 or x.shape[0] not in (None, views.size):
                raise ValueError(
                    f"Expected embed to return tensors (batch, ...) with micro_batch={views.size}. "
                    f"Received: {name!r} of shape {tuple(x.shape)}"
                )
        return embedded, [statistics for _, *statistics in records]

    (embedded, statistics), _ = _over_pieces(
        views.count,
        lambda index, nothing: (of_piece(index), nothing),
        like=_signature(of_piece),
        carried=[],
    )
    _follow(layers, statistics)
    return {name: views.join(x) for name, x in embedded.items()}


def loss_and_gradients(
    model: SSLModel,
    views: Mapping[str, tf.Tensor],
    loss: LossFunction,
    variables: list[keras.Variable],
) -> tuple[tf.Tensor, Tensors, list[tf.Tensor]]:
    """Returns the loss, its `aux` and this replica's share of the gradient, scaled as the model scales its loss.

    Whole views: one pass. Views in pieces: the gradient is that of the whole batch with batch-norm over each
    micro-batch, and the running statistics follow the mean over the micro-batches, once for each call of a layer.
    """
    if not comes_in_pieces(views):
        with tf.GradientTape() as tape:
            value, aux = loss(model.embed(views, training=True), views)
            objective = _objective(model, value, penalties=model.losses)
        return value, aux, _gradients(tape, objective, variables)
    if model.loss_averages_samples and loss == model.loss:
        return _accumulate(model, views, variables)
    return _embed_twice(model, views, loss, variables)


def _accumulate(
    model: SSLModel, views: PiecewiseViews, variables: list[keras.Variable]
) -> tuple[tf.Tensor, Tensors, list[tf.Tensor]]:
    """One pass: a loss that is a mean over samples is the mean of its values on the pieces."""
    layers = []  # not annotated: AutoGraph cannot convert functions that share an annotated name

    def forward(index: tf.Tensor) -> Any:
        with deferred_statistics() as records:
            piece = views.piece(index)
            value, aux = model.loss(model.embed(piece, training=True), piece)
        layers[:] = [layer for layer, _, _ in records]
        return value, aux, [statistics for _, *statistics in records]

    def backward(index: tf.Tensor, sums: list[tf.Tensor]) -> Any:
        with tf.GradientTape() as tape:
            outputs = forward(index)
            objective = _objective(model, outputs[0], penalties=model.losses)
            objective /= tf.cast(views.count, objective.dtype)
        return outputs, _add(sums, _gradients(tape, objective, variables))

    zeros = [tf.zeros_like(variable.value) for variable in variables]
    outputs, gradients = _over_pieces(
        views.count, backward, like=_signature(forward), carried=zeros
    )
    value, aux, statistics = outputs
    _follow(layers, statistics)
    value, aux = tf.nest.map_structure(lambda x: tf.reduce_mean(x, 0), (value, aux))
    return value, aux, gradients


def _embed_twice(
    model: SSLModel, views: PiecewiseViews, loss: LossFunction, variables: list[keras.Variable]
) -> tuple[tf.Tensor, Tensors, list[tf.Tensor]]:
    """Two passes: all embeddings and the loss; then each piece again, with the gradient of its embeddings.

    Reference: Gao, Zhang, Han, Callan, 2021, https://arxiv.org/abs/2101.06983, section 3.2.
    """
    embeddings = embed(model, views, training=True)
    sources = {name: x for name, x in embeddings.items() if x.dtype.is_floating}
    values = [variable.value for variable in variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        value, aux = loss(embeddings, views)
        objective = _objective(model, value)
    outputs, direct = tape.gradient(objective, (sources, values))
    outputs = {name: _dense(x) for name, x in outputs.items() if x is not None}
    start = [_dense(x, like) for x, like in zip(direct, values, strict=True)]

    def backward(index: tf.Tensor, sums: list[tf.Tensor]) -> Any:
        with tf.GradientTape() as tape, deferred_statistics():  # the first pass has counted them
            embedded = model.embed(views.piece(index), training=True)
            targets = [embedded[name] for name in outputs]
            seeds = [views.cut(x, index) for x in outputs.values()]
            if model.losses:
                zero = tf.zeros((), value.dtype)
                penalty = _objective(model, zero, penalties=model.losses)
                targets.append(penalty / tf.cast(views.count, penalty.dtype))
                seeds.append(tf.ones_like(targets[-1]))
        return [], _add(sums, _gradients(tape, targets, variables, seeds))

    return value, aux, _over_pieces(views.count, backward, like=[], carried=start)[1]


def _objective(model: SSLModel, value: tf.Tensor, penalties: Any = ()) -> tf.Tensor:
    """Returns what is differentiated on this replica; the sum over replicas is the loss and its regularizers."""
    total = value + sum(tf.cast(term, value.dtype) for term in penalties)
    objective = total / num_replicas()
    return objective if model.loss_scale is None else model.loss_scale.scale(objective)


def _gradients(
    tape: tf.GradientTape,
    targets: Any,
    variables: list[keras.Variable],
    output_gradients: list[tf.Tensor] | None = None,
) -> list[tf.Tensor]:
    values = [variable.value for variable in variables]
    gradients = tape.gradient(targets, values, output_gradients=output_gradients)
    return [_dense(gradient, like) for gradient, like in zip(gradients, values, strict=True)]


def _dense(gradient: Any, like: tf.Variable | None = None) -> tf.Tensor:
    return tf.zeros_like(like) if gradient is None else tf.convert_to_tensor(gradient)


def _add(sums: list[tf.Tensor], terms: list[tf.Tensor]) -> list[tf.Tensor]:
    return [total + term for total, term in zip(sums, terms, strict=True)]


def _follow(layers: list[BatchNormalization], statistics: Any) -> None:
    """Moves the running statistics once for each call, towards the mean over the pieces."""
    for layer, (mean, variance) in zip(layers, statistics, strict=True):
        layer.follow(tf.reduce_mean(mean, 0), tf.reduce_mean(variance, 0))


def _signature(function: Callable[[tf.Tensor], Any]) -> Any:
    """Returns the structure that `function` of a piece's number returns: tensors with dtype and shape."""
    traced = tf.function(function).get_concrete_function(tf.TensorSpec((), tf.int32))
    return traced.structured_outputs


def _over_pieces(
    count: int | tf.Tensor,
    function: Callable[[tf.Tensor, list[tf.Tensor]], tuple[Any, list[tf.Tensor]]],
    *,
    like: Any,
    carried: list[tf.Tensor],
) -> tuple[Any, list[tf.Tensor]]:
    """Runs a function over the pieces, one after the other, in a loop inside the graph.

    Args:
        count: int or int32 scalar.
        function: callable `(index, carried) -> (outputs, carried)`.
        like: structure of the outputs.
        carried: list of tensors that go from piece to piece.

    Returns:
        The outputs of all pieces, stacked, and what the last piece carried.
    """
    arrays = [
        tf.TensorArray(x.dtype, size=count, element_shape=x.shape) for x in tf.nest.flatten(like)
    ]

    def body(index: tf.Tensor, arrays: list[tf.TensorArray], carried: list[tf.Tensor]) -> Any:
        outputs, carried = function(index, carried)
        flat = tf.nest.flatten(outputs)
        arrays = [array.write(index, x) for array, x in zip(arrays, flat, strict=True)]
        return index + 1, arrays, carried

    start = (tf.constant(0), arrays, carried)
    _, arrays, carried = tf.while_loop(
        lambda index, *_: index < count, body, start, parallel_iterations=1
    )
    return tf.nest.pack_sequence_as(like, [array.stack() for array in arrays]), carried
