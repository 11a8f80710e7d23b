"""The same numbers as PyTorch's own functions: convolutions, batch-norm, attention, bicubic resize."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.backbones import ResNet, ViT
from keras_ssl.layers import interpolate_positions

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed; the NumPy references say the same"
)
F = torch.nn.functional
MEAN, STD = (
    torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def tensors(model):
    """Random values for every variable; their copies as PyTorch tensors, kernels in its layout."""
    rng, out = np.random.default_rng(0), {}
    for variable in model.variables:
        if "kernel" not in variable.path and variable.trainable:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        value = variable.numpy()
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim) if "kernel" in variable.path else None
        out[variable.path.removeprefix("backbone/")] = torch.tensor(
            value if axes is None else value.transpose(axes)
        )
    return out


def pictures(height, width):
    x = np.random.default_rng(1).uniform(size=(4, height, width, 3)).astype("float32")
    return x, (torch.tensor(x).permute(0, 3, 1, 2) - MEAN) / STD


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (47, 33)])
def test_resnet(size, training):
    """torchvision's bottleneck network; `running_var` of F.batch_norm is the unbiased one, momentum 0.1 is our 0.9."""
    model = ResNet((1, 1), filters=(8, 16), image_size=32)
    t, (images, x) = tensors(model), pictures(*size)

    def unit(x, conv, norm, stride=1):
        x = F.conv2d(
            x, t[f"{conv}/kernel"], stride=stride, padding=t[f"{conv}/kernel"].shape[-1] // 2
        )
        running = t[f"{norm}/moving_mean"], t[f"{norm}/moving_variance"]
        return F.batch_norm(x, *running, t[f"{norm}/gamma"], t[f"{norm}/beta"], training, 0.1, 1e-5)

    x = F.max_pool2d(F.relu(unit(x, "stem_conv", "stem_norm", 2)), 3, 2, 1)
    for stage, stride in ((1, 1), (2, 2)):
        name = f"stage{stage}_block0"
        y = F.relu(unit(x, f"{name}/conv1", f"{name}/norm1"))
        y = F.relu(unit(y, f"{name}/conv2", f"{name}/norm2", stride))
        y = unit(y, f"{name}/conv3", f"{name}/norm3")
        x = F.relu(y + unit(x, f"{name}/shortcut_conv", f"{name}/shortcut_norm", stride))
    y = model(images, training=training)
    scale = float(x.abs().max())
    np.testing.assert_allclose(y["map"], x.permute(0, 2, 3, 1), atol=1e-4 * scale)
    np.testing.assert_allclose(y["features"], x.mean((2, 3)), atol=1e-4 * scale)
    for variable in model.non_trainable_variables:
        expected = t[variable.path.removeprefix("backbone/")]
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-5)


def test_vit():
    model = ViT(24, 2, 3, patch_size=8, image_size=32, mlp_ratio=2.0)
    t, (images, x) = tensors(model), pictures(32, 32)
    kernel = t["patch_embedding/kernel"].reshape(24, 8, 8, 3).permute(0, 3, 1, 2)
    x = F.conv2d(x, kernel, t["patch_embedding/bias"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([t["class_token"].expand(4, 1, 24), x], dim=1) + t["position_table"]

    def norm(x, name):
        return F.layer_norm(x, (24,), t[f"{name}/gamma"], t[f"{name}/beta"], 1e-6)

    def linear(x, name):
        return F.linear(x, t[f"{name}/kernel"], t[f"{name}/bias"])

    for i in range(2):
        qkv = linear(norm(x, f"block{i}/norm1"), f"block{i}/qkv")
        q, k, v = qkv.reshape(4, 17, 3, 3, 8).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(4, 17, 24)
        x = x + linear(heads, f"block{i}/projection")
        x = x + linear(
            F.gelu(linear(norm(x, f"block{i}/norm2"), f"block{i}/hidden")), f"block{i}/output"
        )
    x = norm(x, "norm")
    y = model(images)
    np.testing.assert_allclose(y["features"], x[:, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y["tokens"], x[:, 1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((14, 14), (6, 6)),
        ((6, 6), (14, 14)),
        ((14, 14), (24, 24)),
        ((37, 37), (16, 16)),
        ((37, 37), (20, 45)),
    ],
)
def test_positions(source, target):
    """`size=` is MAE's way; `scale_factor=(n + 0.1) / M` is DINO's, our offset 0.1; antialias: DINOv2, registers."""
    table = np.random.default_rng(0).normal(size=(1, source[0] * source[1], 5))
    image = torch.tensor(table).reshape(1, *source, 5).permute(0, 3, 1, 2)
    by_size = F.interpolate(image, size=target, mode="bicubic", align_corners=False)
    scale = tuple((new + 0.1) / old for new, old in zip(target, source, strict=True))
    by_scale = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
    smooth = F.interpolate(image, size=target, mode="bicubic", antialias=True)
    for settings, expected in (
        ({}, by_size),
        ({"offset": 0.1}, by_scale),
        ({"antialias": True}, smooth),
    ):
        got = interpolate_positions(tf.constant(table), source, target, **settings)
        expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 5)
        np.testing.assert_allclose(got, expected, atol=1e-10)
