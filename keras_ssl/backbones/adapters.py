"""Networks of keras.applications, KerasHub and KerasCV with the contract of our own backbones."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from keras_ssl.layers.batch_norm import BatchNormalization

LIBRARIES = ("keras_applications", "keras_hub", "keras_cv")
Preprocessing = Callable[[tf.Tensor], tf.Tensor]


def _require(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = module.replace("_", "-")
        raise ImportError(
            f"Backbones named `{module}:...` need the package {extra}: pip install 'keras_ssl[{extra}]'"
        ) from error


def _lookup(table: Any, name: str, library: str) -> Any:
    found = getattr(table, name, None)
    if found is None or not callable(found):
        raise ValueError(f"`{library}` has no network of this name. Received: {library}:{name}")
    return found


def _applications(
    name: str, image_size: int, weights: str | None, settings: dict[str, Any]
) -> tuple[keras.Model, Preprocessing]:
    make = _lookup(keras.applications, name, "keras_applications")
    settings = {"input_shape": (None, None, 3), **settings}
    network = make(include_top=False, weights=weights, **settings)
    modules = [module for _, module in inspect.getmembers(keras.applications, inspect.ismodule)]
    # MobileNetV3 is the one family whose module does not list its names; its preprocessing is in the network.
    home = next(
        (module for module in modules if hasattr(module, name)), keras.applications.mobilenet_v3
    )
    return network, lambda images: tf.convert_to_tensor(home.preprocess_input(images * 255.0))


def _hub(
    name: str, image_size: int, weights: str | None, settings: dict[str, Any]
) -> tuple[keras.Model, Preprocessing | None]:
    hub = _require("keras_hub")
    if hasattr(hub.models, name):
        make = getattr(hub.models, name)
        if weights is not None:
            raise ValueError(
                "A KerasHub class has no weights of its own; name a preset instead, as in "
                f"`keras_hub:resnet_50_imagenet`. Received: keras_hub:{name}, weights={weights!r}"
            )
        shape = inspect.signature(make.__init__).parameters.get("image_shape")
        if shape is not None and shape.default is shape.empty:
            settings = {"image_shape": (image_size, image_size, 3), **settings}
        return make(**settings), None
    network = hub.models.Backbone.from_preset(name, load_weights=weights is not None, **settings)
    converter = hub.layers.ImageConverter.from_preset(name)

    def preprocess(images: tf.Tensor) -> tf.Tensor:
        scale = 1.0 if converter.scale is None else tf.constant(converter.scale, images.dtype)
        offset = 0.0 if converter.offset is None else tf.constant(converter.offset, images.dtype)
        return images * 255.0 * scale + offset

    return network, preprocess


def _cv(
    name: str, image_size: int, weights: str | None, settings: dict[str, Any]
) -> tuple[keras.Model, Preprocessing | None]:
    models = _require("keras_cv").models
    # Its networks take [0, 1] when they do not rescale themselves.
    settings = {"include_rescaling": False, **settings}
    if hasattr(models, name):
        if weights is not None:
            raise ValueError(
                "A KerasCV class has no weights of its own; name a preset instead, as in "
                f"`keras_cv:resnet50_imagenet`. Received: keras_cv:{name}, weights={weights!r}"
            )
        return getattr(models, name)(**settings), tf.identity
    make = models.backbones.backbone.Backbone if hasattr(models, "backbones") else models.Backbone
    return make.from_preset(name, load_weights=weights is not None, **settings), tf.identity


_BUILDERS = {"keras_applications": _applications, "keras_hub": _hub, "keras_cv": _cv}


@contextmanager
def _policy(policy: keras.DTypePolicy) -> Iterator[None]:
    """Makes `policy` the default of the layers made inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _with_our_batch_norm(network: keras.Model) -> keras.Model:
    """Puts our batch-norm in the place of Keras's; batch-norm inside composite layers is only synchronized."""

    def swap(layer: Any) -> Any:
        if type(layer) is not keras.layers.BatchNormalization or layer.axis not in (-1, 3):
            return layer
        ours = BatchNormalization(
            momentum=layer.momentum,
            epsilon=layer.epsilon,
            center=layer.center,
            scale=layer.scale,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
        ours.build((None, *layer.moving_mean.shape))
        ours.set_weights(layer.get_weights())
        return ours

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, BatchNormalization):
            kwargs.pop("mask", None)
        return layer(*args, **kwargs)

    if any(type(layer) is keras.layers.BatchNormalization for layer in network.layers):
        network = keras.models.clone_model(network, clone_function=swap, call_function=call)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    return network


@keras.saving.register_keras_serializable(package="keras_ssl")
class AdaptedBackbone(Backbone):
    """A network of another library behind the contract of `Backbone`.

    Takes RGB in [0, 1] and applies the preprocessing that belongs to the network. Its batch-norm layers become
    ours, with their own momentum and epsilon; `replica_exact` is False if it brings dropout or other random
    layers of Keras, whose numbers do not depend on the sample.

    Args:
        source: str. `"keras_applications:Name"`, `"keras_hub:preset-or-class"` or `"keras_cv:preset-or-class"`.
        image_size: int > 0. Defaults to `224`.
        weights: str or None. `"imagenet"`: the published weights (downloads); None: random start. Defaults to
            `None`.
        settings: dict or None. Further arguments of the network's own constructor. Defaults to `None`.
        mean: three floats. Subtracted from RGB in [0, 1]. Only for KerasHub classes, which say nothing about
            preprocessing; for all others the network's own holds. Defaults to ImageNet's.
        std: three floats > 0. Divides after that; likewise. Defaults to ImageNet's.

    Returns "features" `(batch, feature_dim)` and "map" `(batch, h, w, channels)`, or for transformers "tokens"
    `(batch, patches, width)`; then the features are the class token if there is one, else the mean.
    """

    OUTPUTS = ("features",)

    def __init__(
        self,
        source: str,
        *,
        image_size: int = 224,
        weights: str | None = None,
        settings: dict[str, Any] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, mean, std, **kwargs)
        library, _, network_name = source.partition(":")
        if library not in LIBRARIES or not network_name:
            raise ValueError(
                f"`source` must be library:name with a library of {LIBRARIES}. Received: source={source!r}"
            )
        if weights not in (None, "imagenet"):
            raise ValueError(f'`weights` must be None or "imagenet". Received: weights={weights!r}')
        self.source = source
        self.settings = dict(settings or {})
        self._weights = weights
        self._finish()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        library, _, name = self.source.partition(":")
        with _policy(self.dtype_policy):
            network, preprocess = _BUILDERS[library](
                name, self.image_size, self._weights, dict(self.settings)
            )
            patch = getattr(network, "patch_size", None)
            self.network = _with_our_batch_norm(network)
        if preprocess is not None:
            self.mean = self.std = None
        self._preprocess = preprocess
        shape = self.network.compute_output_shape(tuple(input_shape))
        if not isinstance(shape, tuple) or len(shape) not in (3, 4):
            raise ValueError(
                "Expected a network that gives one map or one sequence of tokens. "
                f"Received: {self.source} with output shape {shape}"
            )
        self.feature_dim = shape[-1]
        self._first = 0
        if len(shape) == 3 and patch:
            side = patch[0] if isinstance(patch, (tuple, list)) else patch
            self._first = shape[1] - (self.image_size // side) ** 2
        self.replica_exact = not any(
            getattr(layer, "seed_generator", None) is not None
            for layer in self.network._flatten_layers()
        )
        self.built = True

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the images as the network wants them, in at least float32; argument as in `Backbone`."""
        if self._preprocess is None:
            return super().normalize(images)
        return self._preprocess(self._checked(images))

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
        inputs = tf.nest.map_structure(lambda _: self.normalize(x), self.network.input)
        y = self.network(inputs, training=training)
        wide = y if y.dtype == tf.float64 else tf.cast(y, tf.float32)
        if len(y.shape) == 4:
            return {"features": tf.cast(tf.reduce_mean(wide, (1, 2)), y.dtype), "map": y}
        features = wide[:, 0] if self._first else tf.reduce_mean(wide, 1)
        return {"features": tf.cast(features, y.dtype), "tokens": y[:, self._first :]}

    def get_config(self) -> dict[str, Any]:
        # Weights are left out: a clone is a new network, and a saved one brings its own.
        config = {**super().get_config(), "source": self.source, "settings": dict(self.settings)}
        if self._preprocess is not None:
            del config["mean"], config["std"]
        return config
