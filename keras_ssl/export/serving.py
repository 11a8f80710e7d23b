"""A folder of models for TensorFlow Serving: versions, and the server's files beside them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.export.facts import folder_size
from keras_ssl.export.saved_model import export_encoder

MODELS, BATCHING, MONITORING = "models.config", "batching.conf", "monitoring.conf"
# Where the root of the models is inside the server's container.
MOUNT = "/models"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")

_BATCHING_TEXT = """\
# For --batching_parameters_file. On processors try timeouts of 0 to 10 ms; on accelerators find max_batch_size first.
max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 4 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
allowed_batch_sizes: 16
allowed_batch_sizes: 32
allowed_batch_sizes: 64
"""
_MONITORING_TEXT = """\
# For --monitoring_config_file; the REST port answers there.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def export_version(
    encoder: keras.Model, model: str | Path, version: int | str = "auto", **settings: Any
) -> Path:
    """Writes an encoder as a version of a served model, and the server's files beside the model.

    `root/model/version/` appears whole, so a server that watches the folder loads it when it is complete. An older
    version is never replaced. `root/models.config` gets an entry for the model if it has none; entries that are there,
    and `batching.conf` and `monitoring.conf`, are left as they are, so they can be edited.

    Args:
        encoder: Keras model, as for `export_encoder`.
        model: path. Folder of the model; its name is the name of the model, letters, digits, `_`, `.` and `-`.
        version: int or `"auto"`. Positive; `"auto"` is the highest plus one. Defaults to `"auto"`.
        **settings: Further arguments of `export_encoder`.

    Returns:
        Path. The folder of the version.

    Raises:
        ValueError: If the version exists, or name or version cannot be.
    """
    model = Path(model).absolute()
    number = _check_version(model, version)
    _read_models(model.parent / MODELS)
    model.mkdir(parents=True, exist_ok=True)
    # A server looks at folders whose names are numbers only.
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=model))
    try:
        draft = scratch / model.name
        export_encoder(encoder, draft, **settings)
        target = _claim(model, draft, number)
    finally:
        shutil.rmtree(scratch)
    write_configs(model)
    return target


def write_configs(model: Path) -> None:
    """Adds a model to `models.config` of its root, and writes the other files where they are missing.

    Args:
        model: path. Folder of the model, `root/name`.

    Raises:
        ValueError: If `models.config` is there but holds no list of models.
    """
    root = model.parent
    with _locked(root):
        path = root / MODELS
        text = _read_models(path)
        if not re.search(rf"name\s*:\s*[\"']{re.escape(model.name)}[\"']", _without_comments(text)):
            _replace(path, _with_entry(text, model.name))
        for name, content in ((BATCHING, _BATCHING_TEXT), (MONITORING, _MONITORING_TEXT)):
            if not (root / name).exists():
                _replace(root / name, content)


def versions(model: Path) -> list[int]:
    """Returns the versions of a model, lowest first: its folders that a server would look at."""
    if not model.is_dir():
        return []
    return sorted(int(path.name) for path in model.iterdir() if path.name.isdecimal())


def docker_command(root: Path) -> str:
    """Returns the command that serves all models of a root, gRPC on port 8500 and REST on 8501."""
    return (
        f"docker run --rm -p 8500:8500 -p 8501:8501 -v {shlex.quote(f'{root}:{MOUNT}:ro')} tensorflow/serving "
        f"--model_config_file={MOUNT}/{MODELS} --model_config_file_poll_wait_seconds=60 --enable_batching=true "
        f"--batching_parameters_file={MOUNT}/{BATCHING} --monitoring_config_file={MOUNT}/{MONITORING}"
    )


def curl_command(name: str) -> str:
    """Returns the command that sends `picture.jpg` to the server and prints its features."""
    body = """'{"signature_name": "bytes", "instances": [{"b64": "%s"}]}'"""
    return (
        rf"""printf {body} "$(base64 < picture.jpg | tr -d '\n')" """
        f"| curl -sS -d @- http://localhost:8501/v1/models/{name}:predict"
    )


def write(
    encoder: keras.Model,
    to: Path,
    *,
    image_size: int,
    facts: Mapping[str, Any],
    crop_ratio: float | None = None,
    version: str | None = None,
    train_signature: bool = False,
) -> list[str]:
    """Writes a SavedModel, to serve or not, and returns what the command prints."""
    settings = {"image_size": image_size, "crop_ratio": crop_ratio, "extra_metadata": facts}
    if version is None:
        export_encoder(encoder, to, train_signature=train_signature, **settings)
        return [f"{to} holds the encoder ({_cost(to)}): `tf.saved_model.load` it, or serve it."]
    if train_signature:
        raise ValueError(
            "Expected --train-signature without --version: a caller of a server could change the model. "
            f"Received: --version {version}."
        )
    target = export_version(encoder, to, version, **settings)
    root = target.parent.parent
    return [
        f"{target} holds version {target.name} of {target.parent.name} ({_cost(target)}).",
        "Serve all models of this folder:",
        f"  {docker_command(root)}",
        "Ask for features:",
        f"  {curl_command(target.parent.name)}",
    ]


def _cost(directory: Path) -> str:
    begin = time.perf_counter()
    tf.saved_model.load(str(directory))
    seconds = time.perf_counter() - begin
    return f"{folder_size(directory) / 1e6:,.1f} MB, loaded in {seconds:.1f} s"


def _check_version(model: Path, version: int | str) -> int | None:
    """Returns the version, None for the next one."""
    if not _NAME.fullmatch(model.name) or model.name.isdecimal():
        raise ValueError(
            "Expected a folder named like the model, of letters, digits, _, . and -, not a number. "
            f"Received: {str(model)!r}."
        )
    if (model / "saved_model.pb").exists():
        raise ValueError(
            f"Expected a folder of versions at {model}. Received: a SavedModel itself; choose another --to."
        )
    if version == "auto":
        return None
    if not str(version).isdecimal() or int(version) < 1:
        raise ValueError(f"Expected --version auto or a positive number. Received: {version!r}.")
    if int(version) in versions(model):
        raise ValueError(
            f"Expected a new version of {model.name}. Received: {int(version)}, which exists and may be served; "
            "take --version auto."
        )
    return int(version)


def _claim(model: Path, draft: Path, number: int | None) -> Path:
    """Moves a finished draft to its version; if another export was quicker, to the next one."""
    for _ in range(100):
        target = model / str(number or max(versions(model), default=0) + 1)
        try:
            os.rename(draft, target)  # fails where the folder exists and holds something
            return target
        except OSError:
            if not target.exists() or number is not None:
                raise
    raise ValueError(f"Expected a free version in {model}. Received: other exports took them all.")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lets one export at a time change the files of a root."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_models(path: Path) -> str:
    """Returns the text of a `models.config`, an empty list where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else "model_config_list {\n}\n"
    if not re.fullmatch(r"\s*model_config_list\s*:?\s*\{.*\}\s*", _without_comments(text), re.S):
        raise ValueError(
            f"Expected `model_config_list {{ ... }}` in {path}. Received: something else; move it away."
        )
    return text


def _with_entry(text: str, name: str) -> str:
    """Returns a `models.config` with one more model, before the brace that ends the list."""
    end = _without_comments(text).rindex("}")
    entry = (
        "  config {\n"
        f'    name: "{name}"\n'
        f'    base_path: "{MOUNT}/{name}"\n'
        '    model_platform: "tensorflow"\n'
        "  }\n"
    )
    head = text[:end]
    return head + ("" if head.endswith("\n") else "\n") + entry + text[end:]


def _without_comments(text: str) -> str:
    """Blanks the comments, so that places in the text stay the same."""
    return re.sub(r"#[^\n]*", lambda found: " " * len(found[0]), text)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
