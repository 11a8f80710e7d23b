"""From the file to the features: checkpoints written as the authors' programs write them, read and converted."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from keras_ssl import checkpoints
from keras_ssl.backbones import ResNet
from keras_ssl.conversion import LAYOUTS, convert, read_head
from keras_ssl.conversion.references import numpy_resnets
from tests.checkpoints import makers
from tests.conversion import fixtures

PLAN = {"blocks": (1, 1), "filters": (4, 6)}
IMAGES = fixtures.pictures(45)


def relative(got, expected):
    return np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()


def prefixed(tensors, prefix):
    return {f"{prefix}{key}": value for key, value in tensors.items()}


@pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])
def test_moco_file(tmp_path, stream):
    """Query encoder, key encoder, queue and optimizer under `state_dict`; the key encoder is not taken."""
    torch = pytest.importorskip("torch", reason="torch is not installed; it writes the file")
    from keras_ssl.conversion.references import running, torch_resnets

    encoder, other = (
        fixtures.random_tensors(fixtures.torchvision_shapes(**PLAN), s) for s in (1, 2)
    )
    shapes = {
        "fc.0.weight": (24, 24),
        "fc.0.bias": (24,),
        "fc.2.weight": (8, 24),
        "fc.2.bias": (8,),
    }
    head = fixtures.random_tensors(shapes)
    whole = prefixed({**encoder, **head}, "module.encoder_q.")
    whole |= prefixed({**other, **head}, "module.encoder_k.")
    whole |= {
        "module.queue": np.zeros((8, 16), np.float32),
        "module.queue_ptr": np.zeros(1, np.int64),
    }
    state = {key: torch.tensor(value) for key, value in whole.items()}
    made = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(made, tmp_path / "moco.pth.tar", _use_new_zipfile_serialization=not stream)
    tree = checkpoints.read(tmp_path / "moco.pth.tar").tree
    tensors = checkpoints.select_tensors(tree, "state_dict", "module.encoder_q.")
    network = ResNet(**PLAN, image_size=32)
    certificate = convert(tensors, network, LAYOUTS["torchvision_resnet"])
    assert {key for key in certificate["left_out"] if "tracked" not in key} == set(shapes)
    reference = running.load_strictly(torch_resnets.ResNet(**PLAN), encoder)
    prepared = functools.partial(running.normalized, mean=network.mean, std=network.std)
    expected = running.torch_run(reference, prepared)(IMAGES)["features"]
    got = network(IMAGES)["features"]
    assert relative(got, expected) < 1e-4
    projector, _ = read_head("moco_v2", tensors)
    hidden = np.maximum(expected @ head["fc.0.weight"].T + head["fc.0.bias"], 0)
    z = hidden @ head["fc.2.weight"].T + head["fc.2.bias"]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(projector(got)["projection"], z, atol=1e-4)


def test_swav_file(tmp_path):
    """Flat, under `module.`: encoder, then the head, then the prototypes."""
    torch = pytest.importorskip("torch", reason="torch is not installed; it writes the file")

    encoder = fixtures.random_tensors(fixtures.torchvision_shapes(**PLAN, width=2))
    shapes = {"projection_head.0.weight": (16, 48), "projection_head.0.bias": (16,)}
    shapes |= {f"projection_head.1.{name}": (16,) for name in fixtures.NORM}
    shapes |= {"projection_head.3.weight": (8, 16), "projection_head.3.bias": (8,)}
    head = fixtures.random_tensors({**shapes, "prototypes.weight": (30, 8)})
    whole = prefixed({**encoder, **head}, "module.")
    state = {key: torch.tensor(value) for key, value in whole.items()}
    torch.save(state, tmp_path / "swav.pth.tar", _use_new_zipfile_serialization=False)
    tensors = checkpoints.select_tensors(checkpoints.read(tmp_path / "swav.pth.tar").tree)
    network = ResNet(**PLAN, width=2, image_size=32)
    assert convert(tensors, network, LAYOUTS["torchvision_resnet"])["tensors_used"] == 45
    made, certificate = read_head("swav", tensors)
    assert certificate["tensors_used"] == len(head)
    assert made.settings["widths"] == [16, 8] and made.settings["prototypes"] == [30]


@pytest.mark.parametrize("protocol", [2, 4])
def test_byol_pickle(tmp_path, protocol):
    """The whole experiment with classes that are not installed here; the online network and its averages are taken."""
    params, state = (
        fixtures.random_tensors(fixtures.flat(part)) for part in fixtures.byol_shapes(**PLAN)
    )
    heads = {"projector/linear": {"w": np.ones((24, 8), np.float32)}}
    bytes_ = makers.byol_pickle(
        {**fixtures.nested(params), **heads}, fixtures.nested(state), protocol
    )
    (tmp_path / "pretrain.pkl").write_bytes(bytes_)
    tree = checkpoints.read(tmp_path / "pretrain.pkl").tree
    network = ResNet(**PLAN, padding="same", image_size=32)
    certificates = [
        convert(checkpoints.select_tensors(tree, key), network, LAYOUTS["byol_haiku"])
        for key in ("experiment_state", "")
    ]
    assert certificates[0]["sha256"] == certificates[1]["sha256"]
    assert any(key.startswith("target_params") for key in certificates[0]["left_out"])
    x = (IMAGES - network.mean) / network.std
    online = {key.removeprefix("res_net50/~/"): v for key, v in {**params, **state}.items()}
    expected = numpy_resnets.byol(online, x, PLAN["blocks"])["features"]
    assert relative(network(IMAGES)["features"], expected) < 1e-4
