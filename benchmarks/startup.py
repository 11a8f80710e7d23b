"""Measures how long a person waits for an answer that needs no TensorFlow: `python benchmarks/startup.py`.

Each command runs in processes of its own, after one that is not counted; medians of five. CPU time (of all threads)
hardly changes on a machine that is busy with other work; waiting time does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_CLI = ["-m", "keras_ssl.cli"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import keras_ssl": ["-c", "import keras_ssl"],
    "keras-ssl --help": [*_CLI, "--help"],
    "keras-ssl zoo list": [*_CLI, "zoo", "list"],
}


def once(arguments: list[str]) -> tuple[float, float]:
    """Returns seconds of waiting and of CPU time of one process."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    begin, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.perf_counter() - begin, cpu - before.children_user - before.children_system


def measure(command: str, repetitions: int) -> dict[str, object]:
    """Returns one row of the table."""
    once(COMMANDS[command])  # fills the cache of compiled files
    waits, cpus = zip(*(once(COMMANDS[command]) for _ in range(repetitions)), strict=True)
    return {
        "command": command,
        "wall_s": round(statistics.median(waits), 3),
        "cpu_s": round(statistics.median(cpus), 3),
    }


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5, help="processes counted [5]")
    parser.add_argument("--json", metavar="FILE", help="file to write the rows to")
    options = parser.parse_args(arguments)
    print(f"{'command':>20}{'wall_s':>9}{'cpu_s':>9}")
    rows = []
    for command in COMMANDS:
        row = measure(command, options.repetitions)
        rows.append(row)
        print(f"{command:>20}{row['wall_s']:>9}{row['cpu_s']:>9}", flush=True)
    load = os.getloadavg()[0]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
