"""An encoder to publish, and what is said of it."""

from __future__ import annotations

import keras

RECIPE = {
    "method": "simclr",
    "backbone": "tiny",
    "dataset": "squares, 32 px",
    "epochs": 3,
    "command": "keras-ssl pretrain --method simclr --data squares",
}
RESULTS = {"knn": 0.8125, "linear": None, "knn_random_encoder": 0.25, "rankme": 12.3456}


@keras.saving.register_keras_serializable(package="keras_ssl_tests")
class TinyBackbone(keras.Model):
    """Stands in for a backbone: a kernel, batch-norm and a weight of its own, all there after construction."""

    def __init__(self, feature_dim=4, **kwargs):
        super().__init__(**kwargs)
        self.feature_dim = feature_dim
        self.dense = keras.layers.Dense(feature_dim, name="dense")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.dense.build((None, 3))
        self.norm.build((None, feature_dim))
        self.scale = self.add_weight(shape=(feature_dim,), initializer="ones", name="scale")
        self.built = True

    def call(self, x, training=None):
        return {
            "features": self.norm(self.dense(keras.ops.mean(x, axis=(1, 2))), training=training)
        }

    def get_config(self):
        return {**super().get_config(), "feature_dim": self.feature_dim}
