"""Pre-trains an encoder: `python training/run.py --method simclr --data ~/photos`; the same as `keras-ssl pretrain`."""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # works in a clone that is not installed

from keras_ssl.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["pretrain", *sys.argv[1:]]))
