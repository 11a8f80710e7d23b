"""The head that was trained on top of an encoder: projection and prototypes, and both as one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers import MLP, Prototypes, WeightNormDense
from keras_ssl.losses import l2_normalize

PROTOTYPE_KINDS = ("linear", "weight_norm")


@keras.saving.register_keras_serializable(package="keras_ssl")
class ProjectionHead(keras.Model):
    """A perceptron on the features, and if there are prototypes their scores.

    Args:
        feature_dim: int > 0. Length of the features.
        widths: ints > 0. Of the dense layers.
        normalize: bool. Whether the projection is scaled to length 1. Defaults to `False`.
        prototypes: ints > 0. Number of prototypes of each set; SwAV has one set, DeepCluster-v2 and SeLa-v2 several.
            Defaults to `()`, none.
        prototype_kind: str. `"linear"`: `Prototypes`, as in SwAV; `"weight_norm"`: `WeightNormDense`, as in DINO.
            Defaults to `"linear"`.
        **kwargs: `use_bias`, `output_bias`, `hidden_norm`, `output_norm` and `activation` of `MLP`; `name` and
            `dtype` of `keras.Model`.

    Input: float `(batch, feature_dim)`. Returns a dict with "projection" `(batch, widths[-1])` and, with prototypes,
    "scores" `(batch, prototypes)`, for more than one set a tuple of them. The scores are those of the projection.

    All weights exist after construction.
    """

    MLP_SETTINGS = ("use_bias", "output_bias", "hidden_norm", "output_norm", "activation")

    def __init__(
        self,
        feature_dim: int,
        widths: Sequence[int],
        *,
        normalize: bool = False,
        prototypes: Sequence[int] = (),
        prototype_kind: str = "linear",
        **kwargs: Any,
    ) -> None:
        settings = {key: kwargs.pop(key) for key in self.MLP_SETTINGS if key in kwargs}
        super().__init__(**{"name": "head", "autocast": False, **kwargs})
        if prototype_kind not in PROTOTYPE_KINDS:
            raise ValueError(
                f"`prototype_kind` must be one of {PROTOTYPE_KINDS}. "
                f"Received: prototype_kind={prototype_kind!r}"
            )
        self.settings = {
            "feature_dim": feature_dim,
            "widths": list(widths),
            "normalize": normalize,
            "prototypes": list(prototypes),
            "prototype_kind": prototype_kind,
            **settings,
        }
        self.feature_dim, self.normalize = feature_dim, normalize
        self.projector = MLP(widths, **settings, dtype=self.dtype_policy, name="projector")
        self.projector.build((None, feature_dim))
        layer = Prototypes if prototype_kind == "linear" else WeightNormDense
        self.prototypes = [
            layer(self.projector.widths[-1], count, dtype=self.dtype_policy, name=f"prototypes{i}")
            for i, count in enumerate(prototypes)
        ]
        self.built = True

    def call(self, features: tf.Tensor, training: bool | None = None) -> dict[str, Any]:
        z = self.projector(features, training=training)
        z = l2_normalize(z) if self.normalize else z
        result: dict[str, Any] = {"projection": tf.cast(z, self.compute_dtype)}
        scores = tuple(layer(z) for layer in self.prototypes)
        if scores:
            result["scores"] = scores if len(scores) > 1 else scores[0]
        return result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="keras_ssl")
class EncoderWithHead(keras.Model):
    """An encoder and the head that was trained on it, as one network.

    Args:
        encoder: keras.Model from images to a dict with `"features"`.
        head: ProjectionHead for features of this length.

    Call: as the encoder's. Returns what the encoder returns and what the head makes of its features: "projection" and,
    with prototypes, "scores". The head is in training mode when the encoder is.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model, **kwargs: Any) -> None:
        super().__init__(**{"name": "encoder_with_head", "autocast": False, **kwargs})
        if encoder.feature_dim != head.feature_dim:
            raise ValueError(
                f"Expected a head for features of length {encoder.feature_dim}. "
                f"Received: feature_dim={head.feature_dim}"
            )
        self.encoder, self.head = encoder, head
        self.feature_dim, self.image_size = encoder.feature_dim, encoder.image_size
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None, **kwargs: Any) -> dict[str, Any]:
        result = self.encoder(x, training=training, **kwargs)
        return {**result, **self.head(result["features"], training=training)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EncoderWithHead:
        config = dict(config)
        for part in ("encoder", "head"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)
