"""Environment variables: what each one changes, and what an unset one means."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_ssl import env


@pytest.mark.parametrize("value, expected", [(None, False), ("", False), ("0", False), ("1", True)])
def test_debug(monkeypatch, value, expected):
    monkeypatch.delenv("KERAS_SSL_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_SSL_DEBUG", value)
    assert env.debug() is expected


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
