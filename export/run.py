"""Writes an encoder as SavedModel: `python export/run.py runs/x --to serving/x`; the same as `keras-ssl export`."""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # works in a clone that is not installed

from keras_ssl.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
