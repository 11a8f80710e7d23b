"""The command line: what flags become, and help that one can read."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from keras_ssl import cli, flags
from keras_ssl.methods import METHODS
from keras_ssl.pretraining import build
from keras_ssl.pretraining.recipe import resolve
from keras_ssl.pretraining.recipes import RECIPES


@pytest.mark.parametrize(
    "hint, one, many",
    [
        (int, int, None),
        (float, float, None),
        (bool, bool, None),
        (str, str, None),
        (int | None, int, None),
        (float | None, float, None),
        (str | None, str, None),
        (float | str, float, None),
        (tuple[int, ...], int, Ellipsis),
        (tuple[float, float], float, 2),
        (list[int], int, Ellipsis),
        (Sequence[float], float, Ellipsis),
        (Sequence[float] | None, float, Ellipsis),
        (Any, str, None),
    ],
)
def test_types_of_flags(hint, one, many):
    assert flags.converter(hint) == (one, many)


@pytest.fixture
def settings_of(monkeypatch):
    """Returns what a command line hands to `pretrain`."""
    import keras_ssl.pretraining.run as run

    def read(*arguments: str) -> dict[str, Any]:
        given = {}

        def pretrain(**settings: Any) -> run.RunResult:
            given.update(settings)
            return run.RunResult(None, None, None, 0)

        monkeypatch.setattr(run, "pretrain", pretrain)
        assert cli.main(["pretrain", *arguments]) == 0
        return given

    return read


def test_an_optional_number_is_switched_off_by_none(settings_of, capsys):
    given = settings_of("--recipe", "dino_laptop", "--data", "photos", "--clip-norm", "none")
    assert resolve(recipe="dino_laptop", data="photos")[0].clip_norm == 3.0
    assert resolve(**given)[0].clip_norm is None
    for flag in ("--epochs", "--clip-norm"):  # a number that must be there stays a number
        with pytest.raises(SystemExit) as stopped:
            cli.main(
                [
                    "pretrain",
                    "--recipe",
                    "dino_laptop",
                    flag,
                    "none" if flag == "--epochs" else "no",
                ]
            )
        assert stopped.value.code == 2
        assert flag in capsys.readouterr().err


def test_flags_become_typed_settings(settings_of):
    given = settings_of(
        "--recipe=dino_laptop", "--data", "photos", "--epochs", "3", "--learning-rate", "1e-4",
        "--milestones", "30", "60", "--norm-last-layer", "--quiet", "--teacher-momentum", "0.9",
        "--optimizer-betas", "0.9", "0.95", "--no-backbone-zero-init-residual", "--views-flip-rate", "0",
        "--precision", "mixed_bfloat16",
    )  # fmt: skip
    assert given == {
        "recipe": "dino_laptop",
        "data": "photos",
        "epochs": 3,
        "learning_rate": 1e-4,
        "milestones": [30, 60],
        "norm_last_layer": True,
        "quiet": True,
        "teacher_momentum": 0.9,
        "optimizer_betas": [0.9, 0.95],
        "backbone_zero_init_residual": False,
        "views_flip_rate": 0.0,
        "precision": "mixed_bfloat16",
    }
    assert isinstance(given["epochs"], int) and isinstance(given["views_flip_rate"], float)


def test_what_is_not_given_is_left_to_the_recipe(settings_of):
    assert settings_of("--method", "simclr", "--data", "digits") == {
        "method": "simclr",
        "data": "digits",
    }


def test_flags_are_those_of_the_chosen_parts(settings_of, capsys):
    given = settings_of(
        "--method", "simclr", "--data", "d", "--optimizer", "sgd", "--optimizer-nesterov"
    )
    assert given["optimizer_nesterov"] is True
    with pytest.raises(SystemExit) as stop:
        settings_of("--method", "simclr", "--data", "d", "--optimizer-nesterov")  # of lars: none
    assert stop.value.code == 2
    assert "Expected a known flag. Received: --optimizer-nesterov." in capsys.readouterr().err


def helped(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) < 120
    return text


def by_flag(text: str) -> dict[str, str]:
    """Returns flag -> its help on one line."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        word = line.split()[0].rstrip(",") if line.split() else ""
        if line.startswith("  --") or line.startswith("  -h"):
            found[word] = line.split()[1:]
        elif found and line.startswith("    "):
            found[list(found)[-1]] += line.split()
    return {flag: " ".join(words) for flag, words in found.items()}


@pytest.mark.parametrize("method", METHODS)
def test_help_shows_every_setting_with_its_default(method, capsys, monkeypatch):
    flags = by_flag(helped(capsys, monkeypatch, "pretrain", "--method", method))
    chosen = RECIPES[method]
    groups = {
        "": build.method_settings(method),
        "views_": build.view_settings(),
        "optimizer_": build.optimizer_settings(chosen["optimizer"]),
        "backbone_": build.backbone_settings(chosen["backbone"]),
    }
    for prefix, settings in groups.items():
        for name, parameter in settings.items():
            default = chosen.get(prefix + name, parameter.default)
            text = flags["--" + (prefix + name).replace("_", "-")]
            if default not in (None, (), ""):
                assert text.endswith(f" [{default}]"), text
            said = [word for word in text.split() if re.search("[a-z]", word) and word[0] != "-"]
            assert len(said) > 2 and "Defaults to" not in text, (prefix + name, text)
    assert flags["--epochs"].endswith(f"[{chosen['epochs']}]")
    assert all(name in flags["--recipe"] for name in RECIPES)


def test_help_of_a_recipe_shows_the_numbers_of_the_recipe(capsys, monkeypatch):
    flags = by_flag(helped(capsys, monkeypatch, "pretrain", "--recipe", "swav_laptop"))
    assert flags["--num-prototypes"].endswith("[256]")
    assert flags["--views-num-local"].endswith("[0]")


def test_help_without_a_method_needs_no_tensorflow(subprocess_env):
    code = (
        "import sys\nfrom keras_ssl.cli import main\n"
        "try:\n    main(['pretrain', '--help'])\n"
        "finally:\n    assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Add --method NAME to --help" in done.stdout and "--workdir" in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["pretrain", "evaluate", "export", "prepare", "zoo", "doctor", "replay"]),
        (["doctor"], ["--json"]),
        (["replay"], ["run", "step|file"]),
        (["evaluate"], ["encoder", "--data", "--test-data", "--to FILE"]),
        (["export"], ["encoder", "--to PATH", "--format", "--version", "--crop-ratio"]),
        (["prepare"], ["data", "--to DIR", "--size", "--quality", "--threads"]),
        (["zoo"], ["list", "card"]),
        (["zoo", "list"], ["--method"]),
        (["zoo", "card"], ["name"]),
    ],
)
def test_help_of_the_other_commands(arguments, words, capsys, monkeypatch):
    text = helped(capsys, monkeypatch, *arguments)
    assert all(word in text for word in words)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["pretrian"], "Did you mean 'pretrain'"),
        (["pretrain", "--method", "simclr", "--data", "d", "--epochs", "1.5"], "invalid int value"),
        (["pretrain", "--method", "simclr", "--data", "d", "--temp", "1"], "--temp"),
        (["export", "runs/x"], "--to"),
        (["zoo", "lst"], "'lst'"),
        (["evaluate", "no_such_thing"], "Expected --data"),
        (["prepare", "no_such_thing"], "Expected a folder of images at no_such_thing"),
        (["prepare", "digits"], "Expected --to DIR for data that are no folder of pictures"),
        (["prepare", "digits", "--to", "d"], "Expected encoded pictures"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("keras-ssl: ") and sentence in line


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupt(flags):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "zoo", (*cli.COMMANDS["zoo"][:2], interrupt))
    assert cli.main(["zoo", "list"]) == 130
    assert capsys.readouterr().err == "keras-ssl: interrupted.\n"


def test_pretrain_is_at_hand_and_lazy(subprocess_env):
    code = (
        "import sys, keras_ssl\n"
        "assert 'pretrain' in dir(keras_ssl) and 'tensorflow' not in sys.modules\n"
        "from keras_ssl.pretraining import run\n"
        "assert keras_ssl.pretrain is run.pretrain and 'tensorflow' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
