"""SimCLR's TF2 network as objects of Keras 2, nested and saved as the authors do it. Needs tf_keras."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

Layer = tf_keras.layers.Layer


class Conv(Layer):
    """A convolution in a wrapper, zeros around it if it has a stride."""

    def __init__(self, filters, size, stride=1):
        super().__init__()
        self.border = (size - 1) // 2 if stride > 1 else 0
        padding = "same" if stride == 1 else "valid"
        self.conv2d = tf_keras.layers.Conv2D(filters, size, stride, padding, use_bias=False)

    def call(self, x):
        edges = (self.border, self.border)
        return self.conv2d(tf.pad(x, ((0, 0), edges, edges, (0, 0))))


class Norm(Layer):
    def __init__(self, relu=True):
        super().__init__()
        self.relu = relu
        self.bn = tf_keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)

    def call(self, x, training=False):
        x = self.bn(x, training=training)
        return tf.nn.relu(x) if self.relu else x


class Nothing(Layer):
    """Stands where the authors have a layer without weights."""

    def call(self, x):
        return tf.identity(x)


class Corner(Layer):
    """One row and one column of zeros after the map."""

    def call(self, x):
        return tf.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))


class Selective(Layer):
    def __init__(self, filters, stride):
        super().__init__()
        self.conv2d_fixed_padding = Conv(2 * filters, 3, stride)
        self.batch_norm_relu = Norm()
        squeezed = max(int(filters * 0.0625), 32)
        self.conv2d_0 = tf_keras.layers.Conv2D(squeezed, 1, use_bias=False)
        self.batch_norm_relu_1 = Norm()
        self.conv2d_1 = tf_keras.layers.Conv2D(2 * filters, 1, use_bias=False)

    def call(self, x, training=False):
        x = self.batch_norm_relu(self.conv2d_fixed_padding(x), training=training)
        streams = tf.stack(tf.split(x, 2, -1))
        mean = tf.reduce_mean(tf.reduce_sum(streams, 0), (1, 2), keepdims=True)
        mean = self.batch_norm_relu_1(self.conv2d_0(mean), training=training)
        weights = tf.nn.softmax(tf.stack(tf.split(self.conv2d_1(mean), 2, -1)), axis=0)
        return tf.reduce_sum(streams * weights, 0)


class Bottleneck(Layer):
    def __init__(self, filters, stride, project, selective):
        super().__init__()
        self.projection_layers = []
        if project and selective:
            self.projection_layers += [Corner()] if stride > 1 else []
            padding = "valid" if stride > 1 else "same"
            self.projection_layers.append(
                tf_keras.layers.AveragePooling2D(2, stride, padding=padding)
            )
        if project:
            self.projection_layers.append(Conv(4 * filters, 1, 1 if selective else stride))
            self.projection_layers.append(Norm(relu=False))
        self.shortcut_dropblock = Nothing()
        middle = [Selective(filters, stride)] if selective else [Conv(filters, 3, stride), Norm()]
        self.conv_relu_dropblock_layers = [
            *(Conv(filters, 1), Norm(), Nothing()),
            *(*middle, Nothing()),
            *(Conv(4 * filters, 1), Norm(relu=False), Nothing()),
        ]

    def call(self, x, training=False):
        shortcut = x
        for layer in self.projection_layers:
            shortcut = layer(shortcut)
        for layer in self.conv_relu_dropblock_layers:
            x = layer(x)
        return tf.nn.relu(x + shortcut)


class Group(Layer):
    def __init__(self, filters, count, stride, selective):
        super().__init__()
        self.layers = [
            Bottleneck(filters, 1 if index else stride, not index, selective)
            for index in range(count)
        ]

    def call(self, x, training=False):
        for layer in self.layers:
            x = layer(x)
        return x


class Encoder(Layer):
    def __init__(self, blocks, filters, selective):
        super().__init__()
        first = filters[0]
        convs = [(first // 2, 3, 2), (first // 2, 3, 1), (first, 3, 1)]
        stem = []
        for conv in convs if selective else [(first, 7, 2)]:
            stem += [Conv(*conv), Norm()]
        stem.insert(-1, Nothing())
        pool = tf_keras.layers.MaxPooling2D(3, 2, padding="same")
        self.initial_conv_relu_max_pool = [*stem, pool, Nothing()]
        self.block_groups = [
            Group(filters[stage], count, 2 if stage else 1, selective)
            for stage, count in enumerate(blocks)
        ]

    def call(self, x, training=False):
        for layer in (*self.initial_conv_relu_max_pool, *self.block_groups):
            x = layer(x)
        return tf.reduce_mean(x, (1, 2))


class Head(Layer):
    def __init__(self, units):
        super().__init__()
        self.dense = tf_keras.layers.Dense(units)
        self.bn_relu = Norm(relu=False)

    def call(self, x, training=False):
        return self.bn_relu(self.dense(x), training=training)


class Heads(Layer):
    def __init__(self):
        super().__init__()
        self.linear_layers = [Head(8), Head(4)]

    def call(self, x, training=False):
        for layer in self.linear_layers:
            x = layer(x)
        return x


class Model(tf_keras.Model):
    def __init__(self, blocks, filters, selective):
        super().__init__()
        self.resnet_model = Encoder(blocks, filters, selective)
        self._projection_head = Heads()

    def call(self, x, training=False):
        features = self.resnet_model(x)
        return features, self._projection_head(features)


class Module(tf.Module):
    """What is saved: the model, and beside it a list of its trainable variables."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.trainable_variables_list = model.trainable_variables

    @tf.function
    def __call__(self, images, trainable):
        return {"final_avg_pool": self.model(images, training=trainable)[0]}


def filled_model(blocks, filters, selective=False, seed=0):
    """Returns a model with random weights."""
    model = Model(blocks, filters, selective)
    model(tf.zeros((1, 33, 33, 3)))
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "variance" in variable.name or "gamma" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "kernel" not in variable.name:
            variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


def features(model, images):
    return model(tf.constant(images), training=False)[0].numpy()


def write_checkpoint(model, prefix):
    """Writes the objects that the SavedModel of a model holds as a checkpoint; returns its path."""
    return tf.train.Checkpoint(
        model=model, trainable_variables_list=list(model.trainable_variables)
    ).write(str(prefix))


def save(model, path):
    """Writes a model as the authors do, as a SavedModel that takes `trainable`."""
    module = Module(model)
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    module.__call__.get_concrete_function(spec, trainable=False)
    tf.saved_model.save(module, str(path))
