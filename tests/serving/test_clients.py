"""The clients that users get, against a server that runs the exported folder in the C++ session."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc", reason="the clients need grpcio")
pytest.importorskip("tensorflow_serving.apis", reason="needs tensorflow-serving-api")

CLIENTS = Path(__file__).resolve().parents[2] / "export" / "serving"


def run(*command, env):
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def check_client(command, pictures, folder, env):
    """Asks for all pictures, then for a file that is none; returns what the second call wrote to stderr."""
    files, expected = pictures
    paths = [folder / f"{number}.picture" for number in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    (folder / "no picture.jpg").write_text("hello")
    done = run(*command, *map(str, paths), env=env)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["picture"] for line in lines] == list(map(str, paths))
    got = [line["features"] for line in lines]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    done = run(*command, str(folder / "no picture.jpg"), env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "5 bytes of something else" in done.stderr.splitlines()[-1]


def test_rest_client(server, pictures, tmp_path, subprocess_env_session):
    client = (sys.executable, "-P", str(CLIENTS / "client_rest.py"))
    command = (*client, server.url(""), "swav")
    check_client(command, pictures, tmp_path, subprocess_env_session)
    for words, code, sentence in (
        (command, 2, "usage: "),
        ((*command, str(tmp_path / "missing.jpg")), 1, "No such file"),
        ((*command[:-1], "moco", str(tmp_path / "0.picture")), 1, "404: Servable not found"),
        ((*client, "http://127.0.0.1:1", "swav", str(tmp_path / "0.picture")), 1, "refused"),
    ):
        done = run(*words, env=subprocess_env_session)
        [line] = done.stderr.splitlines()
        assert done.returncode == code and sentence in line


@pytest.mark.slow  # imports TensorFlow twice
def test_grpc_client(server, pictures, tmp_path, subprocess_env_session):
    client = (sys.executable, "-P", str(CLIENTS / "client_grpc.py"))
    command = (*client, f"127.0.0.1:{server.grpc}", "swav")
    check_client(command, pictures, tmp_path, subprocess_env_session)


def test_curl_client_and_the_printed_command(server, pictures, tmp_path, subprocess_env_session):
    from keras_ssl.export import serving

    files, expected = pictures
    (tmp_path / "picture.jpg").write_bytes(files[0])
    command = ("sh", str(CLIENTS / "client.sh"), server.url(""), "swav")
    done = run(*command, str(tmp_path / "picture.jpg"), env=subprocess_env_session)
    assert done.returncode == 0, done.stderr
    [got] = json.loads(done.stdout)["predictions"]
    np.testing.assert_allclose(got, expected[0], rtol=1e-3, atol=1e-3)
    (tmp_path / "text.jpg").write_text("hello")
    done = run(*command, str(tmp_path / "text.jpg"), env=subprocess_env_session)
    assert done.returncode != 0 and "5 bytes of something else" in done.stdout
    assert run("sh", str(CLIENTS / "client.sh"), env=subprocess_env_session).returncode == 2

    printed = serving.curl_command("swav").replace("localhost:8501", f"127.0.0.1:{server.rest}")
    done = subprocess.run(
        ["sh", "-c", printed], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    np.testing.assert_allclose(json.loads(done.stdout)["predictions"], [got], rtol=1e-5)
