"""Exported encoders inside layers of other libraries, in processes that cannot import this one."""

import importlib.util
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

pytestmark = pytest.mark.slow  # `test_standalone.py` is the quick one
WORKER = Path(__file__).with_name("consumers_worker.py")


@pytest.fixture(scope="module")
def work(make_small, tmp_path_factory):
    """Images whose brightness is their class, and the encoder's features of them."""
    work = tmp_path_factory.mktemp("consumers")
    generator = np.random.default_rng(0)
    images = generator.random((64, 32, 32, 3)) * generator.choice([0.3, 1.0], (64, 1, 1, 1))
    encoder = make_small()
    np.save(work / "images.npy", images.astype(np.float32))
    np.save(work / "features.npy", encoder(images.astype(np.float32))["features"])
    export.export_encoder(encoder, work / "encoder", image_size=32, train_signature=True)
    shutil.copy(WORKER, work / "worker.py")
    return work


def run(kind, work):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [sys.executable, "-P", "worker.py", kind, str(work)]
    done = subprocess.run(command, cwd=work, env=kept, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_learned(facts):
    assert facts["first"] == pytest.approx(math.log(2), abs=1e-5)
    assert facts["last"] < 0.9 * facts["first"], facts


def test_tfsm_layer_of_keras(work):
    """With the signature of inference the statistics stand still; with `"train"` they move as well."""
    facts = run("tfsm", work)
    assert facts["same"] < 1e-4
    for name in ("inference", "training"):
        check_learned(facts[name])
        assert 0 < facts[name]["trained"] < facts[name]["all"]
    assert facts["inference"]["moved"] == facts["inference"]["trained"]
    assert facts["training"]["moved"] == facts["training"]["all"]


def test_keras_layer_of_tensorflow_hub(work):
    for name in ("tf_keras", "tensorflow_hub", "packaging"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"hub.KerasLayer is a layer of tf_keras; {name} is not installed")
    facts = run("hub", work)
    assert facts["same"] < 1e-4
    assert (facts["False"]["trained"], facts["False"]["moved"]) == (0, 0)
    assert facts["False"]["last"] < facts["False"]["first"]
    check_learned(facts["True"])
    assert 0 < facts["True"]["trained"] < facts["True"]["all"] == facts["True"]["moved"]
