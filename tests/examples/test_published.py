"""A published encoder through the example: a file as its authors write it, maps, training, export, server."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image

from keras_ssl import checkpoints, zoo
from keras_ssl.conversion import LAYOUTS, extract

REPOSITORY = Path(__file__).resolve().parents[2]


def example():
    spec = importlib.util.spec_from_file_location("published", REPOSITORY / "examples/published.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_from_a_file_to_a_server(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow_serving", reason="the test server needs tensorflow-serving-api")
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))
    keras.utils.set_random_seed(1)
    tensors = extract(zoo.load("dino_vits16", weights=None), LAYOUTS["timm_vit"])
    checkpoints.write_torch(tmp_path / "vits16.pth", tensors)
    run = example().main
    common = ["dino_vits16", "--size", "48", "--to", str(tmp_path / "out")]
    run([*common, "--weights", str(tmp_path / "vits16.pth"), "--any-file", "--count", "32"])
    said = capsys.readouterr().out
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", said).groups())
    assert after < before
    width, height = Image.open(tmp_path / "out" / "maps.png").size
    assert width > 4 * 48 and height > 2 * 48
    server = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "tests/serving/server.py"),
            str(tmp_path / "out/serving"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = json.loads(server.stdout.readline())["rest"]
        run([*common, "--server", f"http://127.0.0.1:{port}"])
    finally:
        server.stdin.close()
        server.wait(60)
    said = capsys.readouterr().out
    (difference,) = re.findall(
        r"served: 4 vectors of 384 numbers, as version 1 gives here to (\S+)", said
    )
    assert float(difference) < 1e-4


def test_it_wants_a_file_or_a_server(capsys):
    for wrong in ([], ["--weights", "a", "--server", "b"]):
        with pytest.raises(SystemExit) as ended:
            example().main(["dino_vits16", *wrong])
        assert ended.value.code == 2
    assert "give --weights FILE" in capsys.readouterr().err
