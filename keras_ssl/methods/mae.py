"""MAE: hide most patches of an image and rebuild them from the rest."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.layers import MAEDecoder, patchify, random_keep_indices
from keras_ssl.losses import mae_loss, normalize_patches
from keras_ssl.methods.base import Aux, Embeddings, SSLModel, Views, embedding_std


@keras.saving.register_keras_serializable(package="keras_ssl")
class MAE(SSLModel):
    """Masked autoencoder.

    The encoder sees only the visible patches; a light decoder, thrown away later, rebuilds the pixels of the hidden
    ones from them and from mask tokens. Rebuilding pixels cannot collapse.

    Args:
        backbone: ViT with a class token. Its `features` `(batch, feature_dim)` are what is kept.
        mask_ratio: float in (0, 1). Share of the patches that is hidden. Defaults to `0.75`.
        normalize_pixels: bool. Whether each target patch is brought to mean 0 and variance 1. Defaults to `True`.
        decoder_dim: int. Width of the decoder. Defaults to `512`.
        decoder_depth: int. Blocks of the decoder. Defaults to `8`.
        decoder_heads: int. Attention heads of the decoder. Defaults to `16`.
        name: str. Defaults to the class name.

    Views: `global` `(1, batch, height, width, 3)` in [0, 1].

    Metrics: `loss`, mean squared error of hidden patches, about 1 for the mean of each patch when pixels are
    normalized; `embedding_std` of the features of the visible patches; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("vit_mini", image_size=32, positions="sincos")
        >>> model = keras_ssl.methods.MAE(backbone, decoder_dim=128, decoder_depth=2, decoder_heads=4)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=256)
        >>> features = model.predict(images / 255.0)

    Reference: He et al., 2021, https://arxiv.org/abs/2111.06377, section 3.
    Reference code: facebookresearch/mae, `models_mae.py`.
    Differs from the reference: nothing known, with a backbone of `positions="sincos"` and `initialization="xavier"`.
    """

    view_spec = {"global": 1}
    recipes = {"large": "mae", "small": "mae_cifar"}
    loss_averages_samples = True

    def __init__(
        self,
        backbone: keras.Model,
        *,
        mask_ratio: float = 0.75,
        normalize_pixels: bool = True,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        name: str | None = None,
    ):
        super().__init__(backbone, name=name)
        if backbone.get_config().get("pooling") != "token":
            raise ValueError(
                "Expected a ViT backbone with a class token as its features: only a ViT can leave out hidden "
                f"patches. Received: {type(backbone).__name__}"
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"Expected mask_ratio in (0, 1). Received: mask_ratio={mask_ratio}")
        self.decoder = MAEDecoder(
            backbone.grid,
            width=decoder_dim,
            depth=decoder_depth,
            num_heads=decoder_heads,
            output_dim=3 * backbone.patch_size**2,
            name="decoder",
        )
        self.decoder.build((None, None, backbone.feature_dim))

    def embed(self, views: Views, training: bool) -> Embeddings:
        images = views["global"][0]
        keys = random.fold_in(views["keys"], "mask")
        patches = self.backbone.grid[0] * self.backbone.grid[1]
        keep, restore, mask = random_keep_indices(keys, patches, self.mask_ratio)
        encoded = self.backbone(images, training=training, keys=views["keys"], keep=keep)
        visible = tf.concat([encoded["features"][:, None], encoded["tokens"]], 1)
        prediction = self.decoder(visible, restore, training=training)
        return {
            "h": encoded["features"],
            "prediction": prediction,  # (batch, patches, 3 * patch_size^2)
            "target": self.target(images),
            "mask": mask,
        }

    def target(self, images: tf.Tensor) -> tf.Tensor:
        """Returns what is to be rebuilt, `(batch, patches, 3 * patch_size^2)`, at least float32."""
        patches = patchify(self.backbone.normalize(images), self.backbone.patch_size)
        return normalize_patches(patches) if self.normalize_pixels else patches

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        e = embeddings
        return mae_loss(e["prediction"], tf.stop_gradient(e["target"]), e["mask"]), {
            "embedding_std": embedding_std(e["h"])
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        views = self.make_views(data)
        aux = self.gradient_step(views)
        return self.report(aux)

    def trivial_loss(self) -> dict[str, float]:
        values = 3 * self.backbone.patch_size**2
        if not self.normalize_pixels:
            return {}
        return {"every patch predicted as its mean": (values - 1) / values}
