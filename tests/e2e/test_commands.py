"""The real commands, in processes of their own: wrong input, bad images, resume after kill, other devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = [
    "--backbone", "resnet_mini", "--image-size", "16", "--batch-size", "16", "--monitor-every", "0",
    "--precision", "float32",
]  # fmt: skip
SWAV = [
    "--recipe", "swav_cifar", *TINY, "--epochs", "4", "--views-num-local", "2", "--views-local-size", "8",
    "--num-prototypes", "20", "--hidden-dim", "32", "--projection-dim", "16", "--freeze-prototypes-epochs", "0.5",
    "--queue-size", "32", "--queue-start-epoch", "0.5", "--save-every", "3", "--log-every", "1",
]  # fmt: skip


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "training" / "run.py"), *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "keras_ssl.cli", *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout if code == 0 else done.stderr


def weights(workdir: Path) -> list[np.ndarray]:
    """Returns all variables of the newest checkpoint."""
    import tensorflow as tf

    folder = sorted((workdir / "checkpoints").glob("step-*"))[-1]
    reader = tf.train.load_checkpoint(str(folder / "state"))
    names = sorted(n for n in reader.get_variable_to_shape_map() if n.startswith("variables/"))
    assert len(names) > 20
    return [reader.get_tensor(name) for name in names]


def steps_of(workdir: Path) -> list[int]:
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of 64 JPEGs of many sizes, in two nested class folders."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(64):
        height, width = rng.integers(14, 60, 2)
        small = rng.integers(0, 255, (4, 4, 3)).astype(np.uint8)
        path = folder / f"class{index % 2}" / f"{index:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(small).resize((width, height), Image.BICUBIC).save(path, quality=90)
    return folder


@pytest.mark.parametrize(
    "first, second",
    [
        pytest.param(1, 2, marks=pytest.mark.thorough),
        pytest.param(4, 1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops_and_the_run_goes_on_elsewhere(photos, tmp_path, first, second):
    def devices(count: int) -> list[str]:
        return ["--strategy", "mirrored", "--replicas", str(count)] if count > 1 else []

    workdir = tmp_path / "run"
    arguments = ["--recipe", "simclr_cifar", *TINY, "--epochs", "6", "--data", str(photos)]
    arguments += ["--optimizer", "sgd", "--precision", "float64", "--log-every", "1"]
    arguments += ["--workdir", str(workdir), "--learning-rate", "0.05"]
    process = start(*arguments, *devices(first), cwd=tmp_path)
    while process.poll() is None and not (workdir / "log.jsonl").is_file():
        time.sleep(0.05)
    while process.poll() is None and len(steps_of(workdir)) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, errors[-2000:]
    assert "Stopped by SIGTERM" in output
    done = int(output.split("after step ")[-1].split()[0])
    assert (workdir / "checkpoints" / f"step-{done:012d}" / "manifest.json").is_file()
    process = start(*arguments, *devices(second), cwd=tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    assert f"after step {done} of 24" in output and f"{second} replica(s)" in output
    whole = tmp_path / "whole"
    arguments[arguments.index(str(workdir))] = str(whole)
    process = start(*arguments, cwd=tmp_path)
    process.communicate(timeout=600)
    assert process.returncode == 0
    pairs = list(zip(weights(whole), weights(workdir), strict=True))
    assert max(np.max(np.abs(a - b), initial=0) for a, b in pairs if a.dtype == np.float64) < 1e-8


def test_broken_images_are_replaced_listed_and_do_not_end_the_run(photos, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, path in enumerate(sorted(photos.rglob("*.jpg"))):
        (folder / f"{index:03d}.jpg").write_bytes(path.read_bytes())
    good = (folder / "000.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    deep = (np.arange(40 * 30).reshape(40, 30) * 50).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.new("CMYK", (30, 40), (10, 200, 30, 40)).save(folder / "cmyk.jpg")
    frames = [Image.new("P", (20, 20), color) for color in (1, 2)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    turned = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (4000, 1), (200, 10, 10)).save(folder / "thin.png")
    arguments = ["--recipe", "rotnet_cifar", *TINY, "--epochs", "2", "--data", str(folder)]
    process = start(*arguments, "--workdir", str(tmp_path / "run"), cwd=tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    listed = {Path(json.loads(line)["path"]).name for line in lines}
    assert listed <= {"truncated.jpg", "text.png", "empty.jpg"}
    assert len(lines) == len(listed) >= 2  # two epochs show nearly all of the 72 images


WRONG = {  # those that split the CPU come first: it can be done only once in a process
    "not divisible": (
        [
            "--recipe",
            "simclr_laptop",
            "--data",
            "digits",
            "--batch-size",
            "15",
            "--strategy",
            "mirrored",
        ],
        "divisible by the 2 replicas",
    ),
    "xla on replicas": (
        ["--recipe", "simclr_laptop", "--data", "digits", "--strategy", "mirrored", "--jit", "on"],
        "--jit off",
    ),
    "unknown method": (["--method", "simcrl", "--data", "digits"], "Did you mean 'simclr'"),
    "unknown recipe": (["--recipe", "simclr_cifa", "--data", "digits"], "simclr_cifar"),
    "unknown flag": (["--method", "simclr", "--data", "digits", "--tempreature", "1"], "--temp"),
    "bad value": (["--method", "simclr", "--data", "digits", "--epochs", "many"], "--epochs"),
    "no data": (["--method", "simclr"], "--data"),
    "no epochs": (["--method", "simclr", "--data", "digits", "--epochs", "0"], "epochs above 0"),
    "views do not fit": (
        ["--recipe", "simclr_laptop", "--data", "digits", "--views", "rotnet_cifar"],
        "rotnet_cifar",
    ),
    "empty folder": (["--recipe", "simclr_laptop", "--data", "empty"], "empty"),
    "no folder": (["--recipe", "simclr_laptop", "--data", "nowhere"], "nowhere"),
    "batch too large": (
        ["--recipe", "simclr_laptop", "--data", "digits", "--batch-size", "5000"],
        "5,000",
    ),
    "no tpu": (
        ["--recipe", "simclr_laptop", "--data", "digits", "--strategy", "tpu"],
        "Received: no TPU named 'local'",
    ),
    "no gpu": (["--recipe", "simclr_laptop", "--data", "digits", "--strategy", "gpu"], "GPU"),
    "foreign folder": (
        ["--recipe", "simclr_laptop", "--data", "digits", "--workdir", "foreign"],
        "foreign",
    ),
    "another recipe": (
        [
            "--recipe",
            "simclr_laptop",
            "--data",
            "digits",
            "--workdir",
            "old",
            "--temperature",
            "0.3",
        ],
        "temperature",
    ),
}
_QUICK = ("unknown method", "unknown recipe", "unknown flag", "bad value", "no data", "no epochs")

_IN_PROCESS = """
import json, sys
from keras_ssl.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        code = main(["pretrain", *arguments])
    except SystemExit as stop:
        code = stop.code
    print("<end>", code, file=sys.stderr)
"""


def test_wrong_input_gives_one_sentence_and_exit_code_2(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    (tmp_path / "old").mkdir()
    settings = {"recipe": {"method": "simclr", "epochs": 20}, "data": ""}
    (tmp_path / "old" / "recipe.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-c", _IN_PROCESS, json.dumps([case for case, _ in WRONG.values()])],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    parts = done.stderr.split("<end>")[:-1]
    codes = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("<end>")]
    assert len(parts) == len(WRONG), done.stderr[-3000:]
    for name, part, code in zip(WRONG, parts, codes, strict=True):
        sentences = [line for line in part.splitlines() if line.startswith("keras-ssl: ")]
        assert code == "2" and len(sentences) == 1, (name, part)
        assert WRONG[name][1] in sentences[0], (name, sentences)
        assert "Traceback" not in part
    assert (tmp_path / "foreign" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", _QUICK[:2])
def test_wrong_names_are_told_at_once(name, tmp_path):
    before = time.monotonic()
    arguments, hint = WRONG[name]
    assert hint in command("pretrain", *arguments, cwd=tmp_path, code=2)
    assert time.monotonic() - before < 2.0  # TensorFlow alone takes three seconds
