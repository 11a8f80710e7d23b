"""Environment variables: what each one changes, and what an unset one means."""

from __future__ import annotations

import pytest

from keras_ssl import env


@pytest.mark.parametrize("value, expected", [(None, False), ("", False), ("0", False), ("1", True)])
def test_debug(monkeypatch, value, expected):
    monkeypatch.delenv("KERAS_SSL_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_SSL_DEBUG", value)
    assert env.debug() is expected


def test_quiet_tensorflow_leaves_a_choice_alone(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    env.quiet_tensorflow()
    assert env.os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    env.quiet_tensorflow()
    assert env.os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"
