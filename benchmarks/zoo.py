"""Trains, measures and packs the zoo's own entries, row by row.

    python benchmarks/zoo.py --data cifar10.npz            # all rows, in order
    python benchmarks/zoo.py --data cifar10.npz --only simclr_rnmini_cifar10

`--data` names an `.npz` of CIFAR-10 with x_train, y_train, x_test, y_test. Every row is an ordinary run in
`--workdir`/NAME, so a stopped one goes on where it was; a row that is packed already is left alone. Settings were
chosen without the test images; they are scored once, with the weights as they are packed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

COMMON = ["--batch-size", "128", "--learning-rate", "1e-3", "--learning-rate-rule", "none"]
# Two epochs each, 20-NN on a held-out slice of train: rate 1e-3 and momentum 0.98 36.8 %, 3e-3 39.4 %, 0.92 37.9 %.
BYOL = ["--learning-rate", "3e-3", "--teacher-momentum", "0.95"]
ROWS = {
    "simclr_rnmini_cifar10": ["--recipe", "simclr_laptop", "--epochs", "8", *COMMON],
    "swav_rnmini_cifar10": ["--recipe", "swav_laptop", "--epochs", "6", *COMMON],
    "byol_rnmini_cifar10": ["--recipe", "byol_laptop", "--epochs", "9", *COMMON, *BYOL],
    "rotnet_rnmini_cifar10": ["--recipe", "rotnet_laptop", "--epochs", "3", *COMMON],
    "mae_vitmini_cifar10": ["--recipe", "mae_laptop", "--epochs", "6", *COMMON],
    "dino_rnmini_cifar10": ["--recipe", "dino_laptop", "--epochs", "5", *COMMON],
}


def main() -> None:
    """Reads the flags and goes through the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="CIFAR-10 as .npz")
    parser.add_argument("--workdir", default="runs/zoo", help="folder of the runs [runs/zoo]")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="some rows")
    flags = parser.parse_args()
    for name in flags.only:
        if (ROOT / "zoo" / name / "entry.json").is_file():
            print(f"{name}: packed already")
            continue
        workdir = Path(flags.workdir) / name
        arguments = [*ROWS[name], "--data", f"{flags.data}:train", "--workdir", str(workdir)]
        command = [sys.executable, str(ROOT / "training" / "run.py"), *arguments]
        subprocess.run(command, check=True)
        publish(name, workdir, flags.data)


def publish(name: str, workdir: Path, data: str) -> None:
    """Measures the encoder of a finished run on the test images, once, and packs it."""
    from keras_ssl import evaluation, zoo
    from keras_ssl.data import open_source
    from keras_ssl.pretraining.finish import load_any_encoder
    from keras_ssl.zoo.table import update_readme
    from keras_ssl.zoo.weights import build_encoder, describe_encoder, pack, unpack

    stored = json.loads((workdir / "recipe.json").read_text())["recipe"]
    lines = (workdir / "log.jsonl").read_text().splitlines()
    encoder = load_any_encoder(workdir)
    unpack(pack(encoder, half=True), encoder)
    untrained = build_encoder(describe_encoder(encoder))
    train, test = open_source(f"{data}:train"), open_source(f"{data}:test")
    results = {}
    for suffix, network in (("", encoder), ("_untrained", untrained)):
        measured = evaluation.evaluate_encoder(network, train, test, ks=(20,))
        results[f"knn{suffix}"] = measured["knn"][20]
        results[f"linear{suffix}"] = measured["linear"]["accuracy"]
        results[f"rankme{suffix}"] = measured["label_free"]["rankme"]
    records = [json.loads(line) for line in lines]
    speeds = [r["images_per_second"] for r in records if r["kind"] == "train"][1:]
    shown = stored["epochs"] * (train.num_samples // stored["batch_size"]) * stored["batch_size"]
    hours = sum(1.0 / speed for speed in speeds) / len(speeds) * shown / 3600
    recipe = {
        "method": stored["method"],
        "backbone": stored["backbone"],
        "dataset": "CIFAR-10",
        "epochs": stored["epochs"],
        "command": f"python benchmarks/zoo.py --data cifar10.npz --only {name}",
        "hardware": f"CPU cores: {len(os.sched_getaffinity(0))}",
        "hours": round(hours, 2),
        "settings": {**stored, "data": "cifar10.npz:train"},
    }
    zoo.pack_entry(encoder, name, recipe, results, lines, ROOT / "zoo", half=True)
    print(f"{name}: {results}")
    if (ROOT / "README.md").is_file():
        update_readme(ROOT / "README.md")


if __name__ == "__main__":
    main()
