"""An exported encoder in a process that has TensorFlow and nothing of ours."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_ssl import export

WORKER = Path(__file__).with_name("standalone_worker.py")


@pytest.fixture(scope="module")
def facts(tmp_path_factory, make_encoder):
    work = tmp_path_factory.mktemp("elsewhere")
    images = np.random.default_rng(1).random((6, 32, 32, 3)).astype(np.float32)
    np.save(work / "images.npy", images)
    for name in ("resnet", "vit"):
        network = make_encoder(name)
        np.save(work / f"features_{name}.npy", network(images)["features"])
        export.export_encoder(network, work / name)
    shutil.copy(WORKER, work / "worker.py")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-P", "worker.py", str(work)],
        cwd=work,
        env=kept,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_features_are_those_of_the_library(facts, name):
    assert facts[f"{name}_call"] < 1e-5
    assert facts[f"{name}_default"] < 1e-5


def test_signatures(facts):
    assert facts["resnet_signatures"] == ["bytes", "feature_map", "serving_default"]
    assert facts["vit_signatures"] == ["bytes", "serving_default", "tokens"]
    assert facts["resnet_extra"] == ["feature_map", [6, 4, 4, 16], "float32"]
    assert facts["vit_extra"] == ["tokens", [6, 64, 16], "float32"]


def test_the_tensorflow_1_loader_runs_it_by_tensor_name(facts):
    assert facts["inputs"] == ["images"]
    assert facts["outputs"] == ["features"]
    assert facts["tf1"] < 1e-5


def test_it_fine_tunes_and_its_batch_norm_follows(facts):
    losses = facts["losses"]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    assert facts["statistics"] > 0
    assert facts["moved"][0] == facts["moved"][1]
    assert facts["still"]
