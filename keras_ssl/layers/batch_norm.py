"""Batch normalization with two-pass statistics over all replicas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.distribution.collectives import global_mean, num_replicas

_deferred = threading.local()  # each replica of a mirrored step is traced in a thread of its own


@contextlib.contextmanager
def deferred_statistics() -> Iterator[list[tuple[BatchNormalization, tf.Tensor, tf.Tensor]]]:
    """Collects batch statistics inside, instead of moving the running ones.

    For code that runs a layer more than once in a step or inside a loop: hand what was collected to `follow`,
    once for each call of a layer, or drop it.

    Yields:
        list of (layer, mean, unbiased variance) in the order of the calls, filled while the context is open.
    """
    outer = getattr(_deferred, "records", None)
    _deferred.records = records = []
    try:
        yield records
    finally:
        _deferred.records = outer


@keras.saving.register_keras_serializable(package="keras_ssl")
class BatchNormalization(keras.layers.Layer):
    """Normalizes each channel by the statistics of the global batch.

    The mean is reduced over the replicas first and the squared deviations from it second. Keras's own layer
    reduces E[x] and E[x^2] and subtracts, which loses about four digits in float32. Statistics are computed in at
    least float32 and the output has the compute dtype. The running variance is the unbiased estimate, as in PyTorch
    and in TensorFlow's fused kernel; that kernel does the work where one replica suffices and statistics are float32.

    As in Keras, `layer.trainable = False` puts the layer in inference mode. To keep batch statistics but leave
    gamma and beta alone, set `trainable` of these variables instead.

    Args:
        momentum: float in [0, 1). Share of the old running statistics kept at each step; PyTorch's 0.1 is 0.9 here.
            Defaults to `0.9`.
        epsilon: float > 0. Added to the variance. Defaults to `1e-5`.
        center: bool. Whether to add beta. Defaults to `True`.
        scale: bool. Whether to multiply by gamma. Defaults to `True`.
        synchronized: bool. Whether statistics are taken over all replicas. If False each replica normalizes by its
            own batch, and the running statistics follow the mean over the replicas, so they stay equal everywhere.
            Defaults to `True`.
        gamma_initializer: initializer of gamma; `"zeros"` for the last one of a residual block. Defaults to `"ones"`.

    Input: `(batch, ..., channels)`, any rank from 2. Output: same shape.

    Reference: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, algorithm 1.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        synchronized: bool = True,
        gamma_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        if epsilon <= 0.0:
            raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.synchronized = synchronized
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels = input_shape[-1]
        if len(input_shape) < 2 or channels is None:
            raise ValueError(
                "Expected an input of rank 2 or more with a known last axis. "
                f"Received: input_shape={tuple(input_shape)}"
            )

        def weight(name: str, initializer: Any, trainable: bool) -> keras.Variable:
            return self.add_weight(
                shape=(channels,),
                initializer=initializer,
                name=name,
                trainable=trainable,
                autocast=False,
            )

        self.gamma = weight("gamma", self.gamma_initializer, True) if self.scale else None
        self.beta = weight("beta", "zeros", True) if self.center else None
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training and self.trainable:
            return self._normalize_by_batch(inputs)
        if self._fusible:
            return self._fused(
                inputs, self._value(self.moving_mean), self._value(self.moving_variance)
            )[0]
        centered = tf.cast(inputs, self._wide) - self._value(self.moving_mean)
        return self._affine(centered, self._value(self.moving_variance))

    @property
    def _wide(self) -> str:
        """The dtype of the statistics: float64 stays, everything else is float32."""
        return "float64" if self.variable_dtype == "float64" else "float32"

    @property
    def _fusible(self) -> bool:
        return self._wide == "float32"

    def _normalize_by_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the inputs normalized by their own statistics; moves the running ones."""
        together = self.synchronized and num_replicas() > 1
        if self._fusible and not together:
            outputs, mean, variance = self._fused(inputs)
        else:
            x = tf.cast(inputs, self._wide)
            reduce = global_mean if together else tf.identity
            axes = list(range(len(x.shape) - 1))
            mean = reduce(tf.reduce_mean(x, axes))
            centered = x - mean
            # The variance is stationary in the mean, so leaving that path out of the gradient is exact.
            squares = tf.square(x - tf.stop_gradient(mean))
            variance = reduce(tf.reduce_mean(squares, axes))
            outputs = self._affine(centered, variance)
            count = tf.size(x) // x.shape[-1] * (num_replicas() if together else 1)
            variance = variance * tf.cast(count / tf.maximum(count - 1, 1), variance.dtype)
        self.follow(mean, variance)
        return outputs

    def follow(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Moves the running statistics one step towards those of a batch; inside `deferred_statistics`, notes them.

        Args:
            mean: `(channels,)`. Of this replica, or of all if the layer is synchronized.
            variance: `(channels,)`. Likewise, the unbiased estimate.
        """
        records = getattr(_deferred, "records", None)
        if records is not None:
            records.append((self, tf.stop_gradient(mean), tf.stop_gradient(variance)))
            return
        if not self.synchronized:
            mean, variance = global_mean(mean), global_mean(variance)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)

    def _move(self, variable: keras.Variable, value: tf.Tensor) -> None:
        old = self._value(variable)
        variable.assign(old + (tf.stop_gradient(value) - old) * (1.0 - self.momentum))

    def _affine(self, centered: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        factor = tf.math.rsqrt(variance + self.epsilon)
        outputs = centered * (factor if self.gamma is None else factor * self._value(self.gamma))
        if self.beta is not None:
            outputs = outputs + self._value(self.beta)
        return tf.cast(outputs, self.compute_dtype)

    def _fused(
        self, inputs: tf.Tensor, *statistics: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs TensorFlow's kernel; returns outputs, mean and unbiased variance of the batch."""
        channels = inputs.shape[-1]
        x = tf.cast(inputs, self.compute_dtype)
        four = x if len(x.shape) == 4 else tf.reshape(x, (-1, 1, 1, channels))
        mean, variance = statistics or ((), ())
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=four,
            scale=tf.ones((channels,)) if self.gamma is None else self._value(self.gamma),
            offset=tf.zeros((channels,)) if self.beta is None else self._value(self.beta),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=not statistics,
        )
        return (outputs if four is x else tf.reshape(outputs, tf.shape(x))), mean, variance

    def _value(self, variable: keras.Variable) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(variable), self._wide)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "synchronized": self.synchronized,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }
