"""A SavedModel as a Keras layer, for Keras models that end in a head of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

# Private, because Keras offers no public way to ask: the state that `load_model(safe_mode=...)` sets.
from keras.src.saving.serialization_lib import in_safe_mode

from keras_ssl.export.facts import check_fingerprint
from keras_ssl.export.saved_model import read_metadata


@keras.saving.register_keras_serializable(package="keras_ssl")
class SavedModelEncoder(keras.layers.Layer):
    """An exported encoder inside a Keras model.

    Its weights are the layer's own: they train, freeze and are saved with the model. With `trainable = False`, or
    when the model is called with `training=False`, batch-norm uses its running statistics and keeps them.

    Args:
        directory: path. What `export_encoder` wrote.
        output: `"features"`, `"tokens"`, `"map"` or `"all"`. What the call returns; `"all"` is the dict of all
            outputs. Defaults to `"features"`.
        trainable: bool. Whether the weights are trained. Defaults to `True`.
        name: str. Defaults to Keras's choice.

    Input: float `(batch, height, width, 3)` in [0, 1]. Output: float32, `(batch, feature_dim)` for features; the
    layer computes in float32 under every dtype policy.

    Example:

        >>> images = keras.Input((224, 224, 3))
        >>> features = SavedModelEncoder("serving/encoder")(images)
        >>> model = keras.Model(images, keras.layers.Dense(10)(features))

    The config holds the folder's path, so the folder must be there when a saved model is loaded; like every layer
    that brings its own program, it is loaded with `keras.saving.load_model(path, safe_mode=False)`.

    It is run once when it is made, on the fixed image whose features were stored with it.

    Raises:
        ValueError: If the folder holds no exported encoder, it does not have this output, or its features are not
            those that were stored. Features that differ by little are a warning.
    """

    def __init__(
        self,
        directory: str | Path,
        output: str = "features",
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=trainable, name=name, **{**kwargs, "dtype": "float32"})
        self.directory, self.output_name = str(directory), output
        self._module = _load(self.directory)
        self.metadata = read_metadata(directory)
        self.image_size = self.metadata.get("image_size")
        self.feature_dim = self.metadata.get("feature_dim")
        available = self._module.outputs.concrete_functions[0].structured_outputs
        if output not in (*available, "all"):
            raise ValueError(
                f"`output` must be one of {[*sorted(available), 'all']}. Received: output={output!r}"
            )
        trained = {id(v) for v in self._module.trainable_variables}
        self._in_order = [
            self._adopt(v, number, id(v) in trained)
            for number, v in enumerate(self._module.variables)
        ]
        self.built = True
        check_fingerprint(self._module_outputs, self.metadata.get("fingerprint"), directory)

    def _module_outputs(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        return self._module.outputs(images, training=training)

    def _adopt(self, variable: tf.Variable, number: int, trained: bool) -> keras.Variable:
        """Makes the SavedModel's variable one of the layer's weights: the same storage, not a copy."""
        # Keras allows no slash in a name; the number keeps names unique.
        name = f"{number:04d}_{variable.name.split(':')[0].replace('/', '_')}"
        own = keras.Variable(variable, trainable=trained, dtype=variable.dtype.name, name=name)
        self._track_variable(own)
        return own

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights in the encoder's own order, so that they fit an encoder of the same form one by one."""
        return list(self._in_order)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor | dict[str, tf.Tensor]:
        outputs = self._module.outputs(inputs, training=bool(training) and self.trainable)
        return dict(outputs) if self.output_name == "all" else outputs[self.output_name]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "directory": self.directory,
            "output": self.output_name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SavedModelEncoder:
        if in_safe_mode():
            raise ValueError(
                "A SavedModelEncoder runs the program stored in its folder. If you trust "
                f"{config['directory']!r}, load the model with `safe_mode=False`."
            )
        return cls(**config)


def load_encoder(directory: str | Path) -> SavedModelEncoder:
    """Returns an exported encoder: images in [0, 1] to a dict with `"features"`.

    Args:
        directory: path. What `export_encoder` wrote.

    Returns:
        `SavedModelEncoder` with `output="all"`, a Keras layer with `image_size` and `feature_dim`.

    Raises:
        ValueError: If the folder holds no exported encoder, or its features are not those that were stored. Features
            that differ by little are a warning.
    """
    return SavedModelEncoder(directory, output="all")


def _load(directory: str) -> Any:
    if not (Path(directory) / "saved_model.pb").is_file():
        raise ValueError(
            "A folder written by `export_encoder` was expected. "
            f"Received: directory={directory!r}, where there is no saved_model.pb"
        )
    module = tf.saved_model.load(directory)
    if not hasattr(module, "outputs") or not hasattr(module, "trainable_variables"):
        raise ValueError(
            "A folder written by `export_encoder` was expected. "
            f"Received: directory={directory!r}, a SavedModel of another kind"
        )
    return module
