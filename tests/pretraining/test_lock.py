"""Two processes never work in one run folder; the system ends the lock of one that dies."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from keras_ssl.pretraining import workdir
from keras_ssl.pretraining.recipe import SettingError

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("process 1 on another")
file.flush()
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_is_for_one_process_until_it_dies(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        sentence = f"Received: {tmp_path}, where process 1 on another does; wait for it"
        with pytest.raises(SettingError, match=sentence):
            workdir.check_unlocked(tmp_path)
        with pytest.raises(SettingError, match=sentence), workdir.locked(tmp_path):
            pytest.fail("entered")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    workdir.check_unlocked(tmp_path)
    with workdir.locked(tmp_path):
        assert "process 1 " not in (tmp_path / ".lock").read_text()


def test_two_runs_of_one_process(tmp_path):
    folder = tmp_path / "new"
    workdir.check_unlocked(folder)
    assert not folder.exists()
    with workdir.locked(folder):
        with pytest.raises(SettingError, match="where process [0-9]+ on "), workdir.locked(folder):
            pytest.fail("entered")
        with pytest.raises(SettingError):
            workdir.check_unlocked(folder)
    with pytest.raises(KeyError), workdir.locked(folder):
        raise KeyError
    workdir.check_unlocked(folder)


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(file, kind):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    with workdir.locked(tmp_path):
        workdir.check_unlocked(tmp_path)
