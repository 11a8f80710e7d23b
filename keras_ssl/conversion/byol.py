"""BYOL's ResNets as the authors' Haiku code names them: the online network of a pickled experiment."""

from __future__ import annotations

import re

import keras

from keras_ssl.conversion.engine import Array, Layout, Port, shaped
from keras_ssl.conversion.torchvision import checked_resnet

# Fields of the experiment by name, or by place where only that was kept.
ONLINE = r"(?:(?:experiment_state[./])?(?:online_params|online_state|0|2)[./])?"
# The name of the network differs (res_net50, res_net200); whether a layer's name has a counter is not verified.
TAIL = re.compile(
    rf"{ONLINE}(?:res_net\d*(?:_\d+)?/~/)?"
    r"((?:block_group_\d+/~/block_\d+/~/)?(?:initial|shortcut)?_?(?:conv|batchnorm)(?:_\d)?"
    r"(?:/~/(?:mean|var)_ema)?)[./](w|scale|offset|average|hidden|counter)"
)


def ports(network: keras.Model) -> list[Port]:
    """Returns the ports of a `ResNet` with `padding="same"`, parameters and running statistics together."""
    network = checked_resnet(network, "same")
    found = _unit(network.stem_conv, network.stem_norm, "initial_conv", "initial_batchnorm")
    for stage, blocks in enumerate(network.stages):
        for index, block in enumerate(blocks):
            path = f"block_group_{stage}/~/block_{index}/~"
            if block.shortcut_conv is not None:
                names = f"{path}/shortcut_conv", f"{path}/shortcut_batchnorm"
                found += _unit(block.shortcut_conv, block.shortcut_norm, *names)
            for number, pair in enumerate(zip(block.convs, block.norms, strict=True)):
                found += _unit(*pair, f"{path}/conv_{number}", f"{path}/batchnorm_{number}")
    return found


def _unit(
    conv: keras.layers.Layer, norm: keras.layers.Layer, conv_key: str, norm_key: str
) -> list[Port]:
    values = {
        "scale": norm.gamma,
        "offset": norm.beta,
        "~/mean_ema/average": norm.moving_mean,
        "~/var_ema/average": norm.moving_variance,
    }
    channels = norm.gamma.shape[-1]
    turn = shaped((1, 1, 1, channels), (channels,))
    norms = [Port(f"{norm_key}/{name}", variable, turn) for name, variable in values.items()]
    return [Port(f"{conv_key}/w", conv.kernel), *norms]


def _prepare(tensors: dict[str, Array]) -> dict[str, Array]:
    """Returns the tensors under the tail of their path, joined by slashes."""
    renamed = {}
    for key, value in tensors.items():
        match = TAIL.fullmatch(key)
        if match is None:
            renamed[key] = value
        else:
            layer = re.sub(r"^initial_(conv|batchnorm)_\d", r"initial_\1", match[1])
            renamed[f"{layer}/{match[2]}"] = value
    return renamed


BYOL_HAIKU = Layout(
    "byol_haiku",
    ports,
    left_out=(
        r".*/(hidden|counter)",
        rf"{ONLINE}(projector|predictor|classifier)[./].*",
        r"(experiment_state[./])?(target_params|target_state|opt_state|1|3|4)([./].*)?",
        r"step|rng",
    ),
    prepare=_prepare,
)
