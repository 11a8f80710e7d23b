"""A save that is killed or meets a full disk, at each of its calls: the last good checkpoint stays."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import tensorflow as tf

from keras_ssl.pretraining.checkpoints import Checkpoints
from keras_ssl.pretraining.errors import TrainingError
from tests.pretraining.test_checkpoints import bits, variables

CALLS = {  # every way in which `save` touches the file system
    os: ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir", "scandir"),
    Path: ("mkdir", "rename", "open", "write_text"),
}


def write_like_tensorflow(prefix: str, files: dict[str, bytes]) -> None:
    """Writes the files of a state in pieces, under other names first, as TensorFlow does."""
    for name, content in files.items():
        draft = prefix.replace("state", name) + ".tempstate"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT)
        for start in range(0, len(content), len(content) // 3):
            os.write(handle, content[start : start + len(content) // 3])
            os.fsync(handle)
        os.close(handle)
        os.rename(draft, prefix.replace("state", name))


def die_at(number: int) -> None:
    """Lets this process kill itself before its file-system call of this number."""
    left = [number]

    def before(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for owner, names in CALLS.items():
        for name in names:
            setattr(owner, name, before(getattr(owner, name)))


@pytest.mark.filterwarnings("ignore:.*fork")
def test_killed_at_every_call_of_a_save(tmp_path):
    """A child is killed at its 1st, 2nd, ... call; each time a whole checkpoint is restored and the next is saved.

    The child does not enter TensorFlow, whose threads a fork does not copy: it writes the same bytes itself.
    """
    mine = variables()
    kept = {}
    checkpoints = Checkpoints(tmp_path / "begun", mine, "me", keep=2)
    for step in (1, 2):
        mine[1].assign(step)
        kept[step] = bits(mine)
        checkpoints.save(step, {})
    mine[1].assign(3)
    kept[3] = bits(mine)
    other = Checkpoints(tmp_path / "whole", mine, "me")
    other.save(3, {})
    files = {p.name: p.read_bytes() for p in other.path(3).glob("state*")}
    assert len(files) == 2
    checkpoints._checkpoint.write = lambda prefix: write_like_tensorflow(prefix, files)
    ended = []
    for number in range(200):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "begun", folder)
        checkpoints.directory = folder
        child = os.fork()
        if child == 0:
            die_at(number)
            checkpoints.save(3, {})
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0
            break
        again = variables(scale=0)
        next_run = Checkpoints(folder, again, "me")
        content = next_run.restore()
        ended.append(content["step"])
        assert bits(again) == kept[content["step"]] and not content["damaged"]
        assert all(path.name.startswith("step-") for path in folder.iterdir())  # no drafts left
        next_run.save(4, {})
        assert next_run.steps() == [content["step"], 4]
        shutil.rmtree(folder)
    assert ended == sorted(ended) and set(ended) == {2, 3}  # the rename is the moment
    assert len(ended) > 25


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_inside_tensorflow_it_leaves_a_draft_that_is_removed(tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    checkpoints.save(1, {})

    def kill(prefix):
        Path(prefix + ".index").write_text("half")
        raise Killed

    checkpoints._checkpoint.write = kill
    with pytest.raises(Killed):
        checkpoints.save(2, {})
    assert (tmp_path / ".writing-000000000002" / "state.index").is_file()
    assert Checkpoints(tmp_path, mine, "me", writer=False).restore()["step"] == 1
    assert (tmp_path / ".writing-000000000002").is_dir()  # a reader removes nothing
    assert Checkpoints(tmp_path, mine, "me").restore()["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "owner, name", [(os, "mkdir"), (os, "fsync"), (Path, "write_text"), (os, "rename"), (tf, "")]
)
def test_a_full_disk_is_one_sentence_and_the_old_one_stays(owner, name, tmp_path, monkeypatch):
    mine = variables()
    checkpoints = Checkpoints(tmp_path / "c", mine, "me")
    checkpoints.save(1, {})
    kept = bits(mine)

    def full(*_, **__):
        if owner is tf:
            text = f"{tmp_path}/state.data.tempstate1; No space left on device [Op:SaveV2]"
            raise tf.errors.ResourceExhaustedError(None, None, text)
        raise FULL

    with monkeypatch.context() as patch:
        if owner is tf:
            patch.setattr(checkpoints._checkpoint, "write", full)
        else:
            patch.setattr(owner, name, full)
        with pytest.raises(TrainingError) as caught:
            checkpoints.save(2, {})
    sentence = str(caught.value)
    assert "step-000000000002. Received: No space left on device (" in sentence
    assert "MB free" in sentence and "\n" not in sentence
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000000000001"]
    again = variables(scale=0)
    assert Checkpoints(tmp_path / "c", again, "me").restore()["step"] == 1
    assert bits(again) == kept
    checkpoints.save(2, {})
    assert checkpoints.steps() == [1, 2]
