"""Environment variables: what each one changes, and what an unset one means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keras_ssl import env


@pytest.mark.parametrize("value, expected", [(None, False), ("", False), ("0", False), ("1", True)])
def test_debug(monkeypatch, value, expected):
    monkeypatch.delenv("KERAS_SSL_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_SSL_DEBUG", value)
    assert env.debug() is expected


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"KERAS_SSL_HOME": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"KERAS_SSL_HOME": "", "XDG_CACHE_HOME": "/x"}, "/x/keras_ssl"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/keras_ssl"),
        ({"KERAS_SSL_HOME": "~/zoo", "HOME": "/h"}, "/h/zoo"),
    ],
)
def test_home(monkeypatch, variables, expected):
    monkeypatch.delenv("KERAS_SSL_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert env.home() == Path(expected)


def test_accepted_licences(monkeypatch):
    monkeypatch.delenv("KERAS_SSL_ACCEPT_LICENCES", raising=False)
    assert env.accepted_licences() == frozenset()
    monkeypatch.setenv("KERAS_SSL_ACCEPT_LICENCES", " CC-BY-NC-4.0, seer,,")
    assert env.accepted_licences() == {"cc-by-nc-4.0", "seer"}


SCRIPT = """
import sys
from keras_ssl import env
env.import_tensorflow_quietly()
assert "tensorflow" in sys.modules
print("heard", file=sys.stderr)
"""


def test_tensorflow_is_imported_without_a_word(subprocess_env):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=subprocess_env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "heard\n")


def test_a_failed_import_is_not_hidden(subprocess_env, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os; os.write(2, b'why'); raise ImportError('broken')"
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**subprocess_env, "PYTHONPATH": f"{tmp_path}:{subprocess_env['PYTHONPATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "why" in done.stderr and "broken" in done.stderr
