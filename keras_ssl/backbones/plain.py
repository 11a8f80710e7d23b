"""Networks without shortcuts: a row of convolutions, then dense layers if wanted. AlexNet and VGGs are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.backbones.base import Backbone
from keras_ssl.backbones.units import PlainUnit, Unit
from keras_ssl.layers.convolution import PaddedConvolution, mean_of_map
from keras_ssl.layers.response_norm import local_response_norm
from keras_ssl.views.pretext import sobel as sobel_edges


class PlainBackbone(Backbone):
    """What AlexNet and the VGGs share; each of them says which units and dense layers it has.

    Args:
        units: Units. The convolutions in order.
        dense: ints > 0. Widths of the dense layers after the last map; none if empty.
        dense_norm: bool. Whether dense layers have a batch-norm instead of a bias.
        final_relu: bool. Whether the last dense layer has a ReLU.
        dropout: float in [0, 1). Rate before the dense layers in training; needs `keys`.
        dropout_from: int. Index of the first dense layer with dropout before it.
        sobel: bool. Whether the network sees the edges of the normalized image (2 channels) instead of its colors.
        lightness: bool. Whether it sees L - 50 of CIE Lab (1 channel) instead; then `mean` and `std` do not count.
        lab: bool. Whether it sees L - 50, a and b of CIE Lab instead; likewise.
        border: int >= 0. Zeros around the image, outside of the padding of the first layer.
        synchronized: bool. See `BatchNormalization`.
        image_size, mean, std: see `Backbone`.

    Attributes: `units` (the convolutions with norm and ReLU), `dense_units` (likewise), `last_map` (height, width,
    channels of what the first dense layer reads at `image_size`).
    """

    def __init__(
        self,
        units: Sequence[Unit],
        *,
        dense: Sequence[int],
        dense_norm: bool,
        final_relu: bool,
        dropout: float,
        dropout_from: int,
        sobel: bool,
        lightness: bool,
        lab: bool,
        border: int,
        synchronized: bool,
        image_size: int,
        **kwargs: Any,
    ) -> None:
        inputs = {"sobel": sobel, "lightness": lightness, "lab": lab}
        if sum(inputs.values()) > 1:
            chosen = " and ".join(name for name, wanted in inputs.items() if wanted)
            raise ValueError(
                f"Expected at most one of sobel, lightness and lab. Received: {chosen}"
            )
        if lightness or lab:
            kwargs |= {"mean": None, "std": None}
        super().__init__(image_size, **kwargs)
        if border < 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(
                "Expected border >= 0 and dropout in [0, 1). "
                f"Received: border={border}, dropout={dropout}"
            )
        self.specs, self.border = tuple(units), border
        self.sobel, self.lightness, self.lab = sobel, lightness, lab
        self.dropout, self.dropout_from = dropout, dropout_from
        self.last_map = (*self._last_side(image_size, image_size), self.specs[-1].filters)
        shared = {"synchronized": synchronized, "dtype": self.dtype_policy}
        self.units = [
            PlainUnit(
                self._convolution(unit),
                batch_norm=unit.batch_norm,
                norm_last=unit.norm_last,
                affine=unit.affine,
                name=f"conv{n}",
                **shared,
            )
            for n, unit in enumerate(self.specs, start=1)
        ]
        self.dense_units = [
            PlainUnit(
                self._dense_layer(width, not dense_norm),
                batch_norm=dense_norm,
                relu=final_relu or n < len(dense),
                name=f"dense{n}",
                **shared,
            )
            for n, width in enumerate(dense, start=1)
        ]
        self.feature_dim = dense[-1] if dense else self.specs[-1].filters
        self._finish()

    def _convolution(self, unit: Unit) -> PaddedConvolution:
        return PaddedConvolution(
            unit.filters,
            unit.kernel_size,
            unit.stride,
            border=unit.border,
            dilation=unit.dilation,
            groups=unit.groups,
            use_bias=True,
            dtype=self.dtype_policy,
            name="conv",
        )

    def _dense_layer(self, width: int, use_bias: bool) -> keras.layers.Dense:
        return keras.layers.Dense(
            width,
            use_bias=use_bias,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=self.dtype_policy,
            name="dense",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels = 2 if self.sobel else 1 if self.lightness else 3
        for unit, spec in zip(self.units, self.specs, strict=True):
            unit.build((None, None, None, channels))
            channels = spec.filters
        width = self.last_map[0] * self.last_map[1] * self.last_map[2]
        for unit in self.dense_units:
            unit.build((None, width))
            width = unit.layer.units
        self.built = True

    def _last_side(self, *sides: int | None) -> tuple[int, ...]:
        """Returns the known sides of the last map, or says that the image is too small for the pools."""
        last = []
        for side in (side for side in sides if side is not None):
            after = side + 2 * self.border
            for unit in self.specs:
                inner, after = unit.side(after)
                if inner < 1 or after < 1:
                    raise ValueError(
                        f"Expected larger images: nothing is left of a side of {side} pixels before the last "
                        f"layer. Received: {' x '.join(map(str, sides))} pixels"
                    )
            last.append(after)
        return tuple(last)

    def call(
        self,
        x: tf.Tensor,
        training: bool | None = None,
        keys: tf.Tensor | None = None,
        keep: tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
        output: str = "features",
    ) -> dict[str, Any]:
        self._check_call(output, keep, mask)
        x, maps = self._first(self.normalize(x)), []
        for unit, spec in zip(self.units, self.specs, strict=True):
            x = self._run_block(unit, x, training)
            maps.append(x)
            x = spec.pooled(x)
            if spec.response_norm:
                x = local_response_norm(x)
        features = self._dense(x, training, keys) if self.dense_units else mean_of_map(x)
        result = {"features": features, "map": x}
        return {**result, "layers": tuple(maps)} if output == "layers" else result

    def _first(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the first convolution sees."""
        self._last_side(*x.shape[1:3])
        if (
            self.sobel
        ):  # a border of n and the filter's own padding of 1 are n + 1 zeros in front of it
            return sobel_edges(x, pad=self.border + 1)
        sides = (self.border, self.border)
        return tf.pad(x, ((0, 0), sides, sides, (0, 0))) if self.border else x

    def _dense(self, x: tf.Tensor, training: bool | None, keys: tf.Tensor | None) -> tf.Tensor:
        if tuple(x.shape[1:]) != self.last_map:
            raise ValueError(
                "Expected images whose last map is the one that the dense layers were built for, "
                f"{self.last_map} (image_size={self.image_size}). Received: {tuple(x.shape[1:])}"
            )
        x = tf.reshape(x, (-1, self.last_map[0] * self.last_map[1] * self.last_map[2]))
        for index, unit in enumerate(self.dense_units):
            if training and self.dropout and index >= self.dropout_from:
                x = self._dropped(x, keys, unit.name)
            x = unit(x, training=training)
        return x

    def _dropped(self, x: tf.Tensor, keys: tf.Tensor | None, name: str) -> tf.Tensor:
        """Returns x with some values of each sample at 0, drawn from (key of the sample, name)."""
        if keys is None:
            raise ValueError(
                f"Dropout at rate {self.dropout} in training needs `keys`, uint32 (batch, 2), as "
                "keras_ssl.random.sample_keys(seed, position) makes them. Received: keys=None"
            )
        numbers = random.uniform(random.fold_in(keys, f"{name}/dropout"), (x.shape[-1],))
        kept = tf.cast(numbers >= self.dropout, x.dtype)
        return x * kept * (1.0 / (1.0 - self.dropout))
