"""What is written and shown of a run: the journal, the lines, the speed."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from keras_ssl.pretraining import console
from keras_ssl.pretraining.console import Meter, Reporter, duration
from keras_ssl.pretraining.journal import Journal


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_lines_after_the_start_and_a_torn_one_are_dropped(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in range(1, 6):
        journal.write("train", step, loss=float(step))
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 2, "lo')  # the process was killed here
    journal = Journal(tmp_path, 3)
    journal.write("train", 4, loss=40.0)
    journal.close()
    found = [(line["step"], line["loss"]) for line in lines(tmp_path)]
    assert found == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert not list(tmp_path.glob("*.writing"))


def test_the_journal_knows_what_was_written_before(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write("monitor", 4, rankme=1.0)
    journal.write("monitor", 8, rankme=1.0)
    assert not journal.wrote("monitor", 4)  # by this process
    journal.close()
    journal = Journal(tmp_path, 4)
    assert journal.wrote("monitor", 4)
    assert not journal.wrote("monitor", 8) and not journal.wrote("train", 4)
    journal.close()


def test_a_run_that_begins_again_drops_all(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n{"step": 1}\n')
    Journal(tmp_path, -1).close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("torn", ["", "[]", "17", '{"kind": "train"}', '{"step": null}'])
def test_lines_that_are_none_are_dropped(torn, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n' + torn + "\n")
    Journal(tmp_path, 9).close()
    assert lines(tmp_path) == [{"step": 1}]


def test_one_who_does_not_write_leaves_all_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text("torn")
    journal = Journal(tmp_path, 0, writer=False)
    journal.write("train", 1, loss=1.0)
    journal.close()
    assert (tmp_path / "log.jsonl").read_text() == "torn"
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_numbers_go_to_tensorboard_and_words_do_not(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write("monitor", 7, rankme=3.5, images=2, good=True, sentence="so it is")
    journal.close()
    (events,) = tmp_path.glob("events*")
    found = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
        if event.step == 7
    }
    assert found == {"monitor/rankme": 3.5, "monitor/images": 2.0}
    (line,) = lines(tmp_path)
    assert line["good"] is True and line["sentence"] == "so it is" and line["time"] > 1e9


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "?"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (200, "3m20s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (86399, "23h59m"),
        (3 * 86400 + 4 * 3600, "3d04h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(console.time, "monotonic", lambda: Clock.now)
    return Clock


def test_the_meter_leaves_out_compilation_and_pauses(clock):
    """10 images a step. The first interval compiles: 2 steps in 50 s; then 4 s of work, 100 s of looking, 1 s."""
    meter = Meter(total_steps=20, batch_size=10)
    clock.now += 50
    assert meter.rate(2) == pytest.approx(0.4)
    assert meter.remaining(2) is None
    clock.now += 4
    assert meter.rate(6) == pytest.approx(10.0)
    assert meter.remaining(6) == pytest.approx(14.0)
    clock.now += 100
    meter.skip()
    clock.now += 1
    assert meter.rate(8) == pytest.approx(20.0)


def test_lines_without_a_terminal_come_every_few_seconds(clock, capsys):
    reporter = Reporter(10, 0)
    reporter.line("first [bold]line[/bold]")
    for step, seconds in ((1, 0), (2, 1), (3, 9), (4, 9.5)):
        clock.now = 100.0 + seconds
        reporter.progress(step, f"step {step}")
    reporter.progress(10, "step 10", last=True)
    reporter.close()
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["first [bold]line[/bold]", "step 1", "step 3", "step 10"]


def test_quiet_shows_what_must_be_shown(capsys):
    reporter = Reporter(10, 0, quiet=True)
    reporter.line("begin")
    reporter.progress(10, "step 10", last=True)
    reporter.line("end", always=True)
    assert capsys.readouterr().out == "end\n"


def test_the_log_is_json_also_when_the_loss_is_not_finite(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write("train", 1, loss=float("nan"), gradient_norm=float("inf"), images=3)
    journal.close()

    def refuse(name):
        raise AssertionError(name)

    line = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert (line["loss"], line["gradient_norm"], line["images"]) == (None, None, 3)
