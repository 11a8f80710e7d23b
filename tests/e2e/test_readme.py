"""The README's code is run as it stands there, and what it links to exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def code_block(title: str, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", section(title), re.S)[1]


@pytest.mark.thorough
def test_quick_start_ends_in_features(tmp_path, subprocess_env):
    code = code_block("Quick start", "python")
    assert len(code.strip().splitlines()) <= 15
    said = re.search(r"print\(features\.shape\)  # (\(.*\))", code)[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=subprocess_env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == said
    assert (tmp_path / "encoder.keras").is_file()


@pytest.mark.parametrize("line", code_block("The commands", "bash").strip().splitlines())
def test_commands_have_flags_that_exist(line):
    """Each command of the README is parsed; pretrain's settings are checked as a run checks them."""
    import argparse

    from keras_ssl import cli
    from keras_ssl.pretraining import build
    from keras_ssl.pretraining.recipe import resolve

    program, name, *arguments = shlex.split(line)
    assert program == "keras-ssl"
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    cli.COMMANDS[name][1](parser, arguments)
    flags = parser.parse_args(arguments)
    if name == "pretrain":
        given = {key: value for key, value in vars(flags).items() if value is not None}
        build.check_settings(resolve(**given)[0])


def test_links_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", README, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) > 3
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif "://" not in link:
            assert (REPOSITORY / link).exists(), link


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"quickstart", "test"} <= named
    assert not [name for name in named if not re.search(rf"^{name}:", makefile, re.M)]


def test_files_that_are_named_exist():
    paths = re.findall(r"`((?:keras_ssl|tests|examples|docs|requirements)/[\w./]+)`", README)
    assert len(paths) > 3
    assert not [path for path in paths if not (REPOSITORY / path).exists()]


def test_measured_numbers_are_those_of_the_files():
    script = REPOSITORY / "benchmarks" / "report.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run: python benchmarks/report.py\n{done.stderr}"
