"""Measures how far converted networks are from their references: `python benchmarks/parity.py`.

One row for each entry of the table in `tests/conversion/parity.py`: a checkpoint of random weights under the official
names is converted, and what our network gives is compared with a reference that was written for this purpose. No
published checkpoint is opened. The rows are written to `docs/benchmarks/parity.json`. Rows whose reference needs a
package that is not installed are left out; the script says so, and the file stays as it was.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
LARGEST = 1e-4  # relative difference that a row may have


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layout", nargs="*", help="only rows of these layouts; writes nothing")
    parser.add_argument("--json", default=str(ROOT / "docs" / "benchmarks" / "parity.json"))
    return parser.parse_args(arguments)


def show(row: dict) -> None:
    print(
        f"{row['layout']:24} {row['name']:16} {row['tensors']:8} {row['left_out']:8} "
        f"{row['absolute']:10.1e} {row['relative']:10.1e}  {row['reference']}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    import keras
    import tensorflow as tf

    from tests.conversion import parity

    print(
        f"{'layout':24} {'row':16} {'tensors':>8} {'left out':>8} {'absolute':>10} {'relative':>10}"
    )
    measured, left_out = [], 0
    for row in (row for family in parity.FAMILIES for row in parity.rows(family)):
        if options.layout and row.layout not in options.layout:
            continue
        if missing := [name for name in row.needs if importlib.util.find_spec(name) is None]:
            print(f"{row.layout}, {row.name}: not measured, {', '.join(missing)} not installed")
            left_out += 1
            continue
        measured.append(parity.measure(row))
        show(measured[-1])
    record = {
        "versions": {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
        "weights": "random, under the official names; no published checkpoint was opened",
        "rows": measured,
    }
    if left_out:
        rows = "1 row was" if left_out == 1 else f"{left_out} rows were"
        print(f"{options.json} stays as it was: {rows} not measured")
    elif not options.layout:
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
    return int(any(not row["relative"] < LARGEST for row in measured))


if __name__ == "__main__":
    sys.exit(main())
