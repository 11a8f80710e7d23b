"""Local Aggregation's ResNet-18 as a TensorFlow 1 checkpoint."""

from __future__ import annotations

import re

import keras

from keras_ssl.backbones import PreActResNet
from keras_ssl.conversion.engine import Array, Layout, Port
from keras_ssl.conversion.simclr import counted, norm_ports

ROOT = "resnet_model"
_LAYERS = r"(conv2d|batch_normalization)(_\d+)?/(kernel|gamma|beta|moving_mean|moving_variance)"
_OWN = re.compile(rf"((?:.*/)?){ROOT}/({_LAYERS}|dense/(kernel|bias))")


def ports(network: keras.Model) -> list[Port]:
    """Returns the ports of a `PreActResNet` in the order in which the authors' code makes its layers."""
    if not isinstance(network, PreActResNet):
        raise ValueError(f"Expected a `PreActResNet`. Received: {type(network).__name__}")
    convs, norms = [network.stem_conv], []
    for block in (block for stage in network.stages for block in stage):
        convs += [] if block.shortcut_conv is None else [block.shortcut_conv]
        convs += block.convs
        norms += block.norms
    norms.append(network.last_norm)
    found = [
        Port(f"{ROOT}/{counted('conv2d', index)}/kernel", conv.kernel)
        for index, conv in enumerate(convs)
    ]
    for index, norm in enumerate(norms):
        found += norm_ports(norm, f"{ROOT}/{counted('batch_normalization', index)}")
    return found


def without_scope(tensors: dict[str, Array]) -> dict[str, Array]:
    """Returns the tensors with those of the network under `resnet_model/` and all others under `other/`.

    The authors' code makes the network in no other scope and their library takes off its own, but the name in the
    released file is not verified: any one scope before it will do. Momenta have no running statistics and are told
    by that.

    Raises:
        ValueError: if several scopes hold a network, or none does.
    """
    matches = {key: _OWN.fullmatch(key) for key in tensors}
    scopes = {
        match[1] for key, match in matches.items() if match and match[2].endswith("moving_mean")
    }
    if len(scopes) != 1:
        raise ValueError(
            f"Expected a checkpoint with one network under {ROOT!r}. Received: {len(scopes)} of them, "
            f"{len(tensors)} tensors."
        )
    scope = scopes.pop()
    return {
        f"{ROOT}/{match[2]}" if match and match[1] == scope else f"other/{key}": tensors[key]
        for key, match in matches.items()
    }


# neuroailab/LocalAggregation `model/resnet_model.py`; neuroailab/tfutils `tfutils/db_interface.py` saves it. Version 1
# of the network has more batch-norms, which are tensors too many. For `PreActResNet((2, 2, 2, 2))`.
LOCAL_AGGREGATION_TF1 = Layout(
    "local_aggregation_tf1",
    ports,
    left_out=(r"other/.*", rf"{ROOT}/dense/.*"),
    prepare=without_scope,
)
