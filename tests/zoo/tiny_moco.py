"""A small entry laid out as MoCo's, its network and its file."""

from __future__ import annotations

import numpy as np

from keras_ssl import checkpoints
from keras_ssl.conversion import LAYOUTS, extract
from keras_ssl.zoo import (
    converting,
    published,
)
from keras_ssl.zoo.published import File, Published

SETTINGS = {"blocks": (1, 1), "filters": (4, 6), "bottleneck": True}
IMAGES = np.random.default_rng(5).random((2, 65, 65, 3), dtype=np.float32)


def make_entry(url, **changes):
    facts = {
        "settings": SETTINGS,
        "image_size": 65,
        "top_keys": ("state_dict",),
        "prefixes": ("module.encoder_q.",),
        "preprocessing": "swav",
        **changes,
    }
    file = File("tiny.pth.tar", (url,) if url else ())
    licence = facts.pop("licence", "mit")
    return Published(
        "tiny_moco", "moco_v2", "tests", "resnet18", "torchvision_resnet", licence, (file,), **facts
    )


def random_network(entry, seed=0):
    rng = np.random.default_rng(seed)
    network = converting.build_network(entry)
    for variable in network.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) * rng.choice([-1, 1], variable.shape))
        if "variance" in variable.path:
            variable.assign(np.abs(variable.numpy()))
    return network


def write_file(path, network, prefix="module.encoder_q."):
    """Writes the network as MoCo's training does: with head, second encoder, queue and optimizer."""
    tensors = extract(network, LAYOUTS["torchvision_resnet"])
    named = {prefix + key: value for key, value in tensors.items()}
    named[f"{prefix}bn1.num_batches_tracked"] = np.array(7)
    named[f"{prefix}fc.0.weight"] = np.ones((3, 24), np.float32)
    named |= {f"module.encoder_k.{key}": value + 1 for key, value in tensors.items()}
    named["module.queue"] = np.ones((4, 8), np.float32)
    checkpoints.write_torch(path, named, {"epoch": 200, "arch": "resnet50"}, key="state_dict")
    return path.read_bytes()


def register(monkeypatch, entry):
    monkeypatch.setattr(published, "published", lambda: {entry.name: entry})
    return entry
