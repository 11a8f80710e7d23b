"""The whole way on a laptop: pre-train on handwritten digits, watch, evaluate, export, load with TensorFlow alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKDIR = Path("runs/quickstart")

SERVE = """
import sys
import numpy as np
import tensorflow as tf
assert "keras_ssl" not in sys.modules
images, expected = (np.load(path) for path in sys.argv[2:])
features = tf.saved_model.load(sys.argv[1])(tf.constant(images)).numpy()
error = np.abs(features - expected).max() / np.abs(expected).max()
print(f"TensorFlow alone loads {sys.argv[1]}: {features.shape[1]} features of {len(images)} images,")
print(f"largest difference to the Keras encoder {error:.1e} of the largest value: ", end="")
print("equal" if error < 1e-5 else "NOT equal")
raise SystemExit(int(error >= 1e-5))
"""


def command(*arguments: str) -> None:
    """Runs one keras-ssl command and shows it."""
    print(f"\n$ keras-ssl {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "keras_ssl.cli", *arguments], check=True)


def main() -> None:
    """Runs the commands and compares the two ways to load the encoder."""
    settings = {"data": "digits:train", "epochs": 20, "batch-size": 128, "workdir": WORKDIR}
    settings |= {
        "views-min-scale": 0.5,
        "views-flip-rate": 0,
    }  # digits are small and have no mirror image
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command("pretrain", "--recipe", "simclr_laptop", *flags)
    command("evaluate", str(WORKDIR), "--data", "digits:train", "--test-data", "digits:test")

    sys.path.insert(0, str(ROOT))
    from keras_ssl.data import open_source
    from keras_ssl.pretraining.finish import load_any_encoder

    images = open_source("digits:test").read_batch(range(64))[0].astype("float32") / 255.0
    features = load_any_encoder(WORKDIR).predict(images, verbose=0)["features"]
    looks = [json.loads(line) for line in (WORKDIR / "log.jsonl").open()]
    looks = [line["knn_accuracy"] for line in looks if line["kind"] == "monitor"]
    print(f"\n20-NN accuracy before {looks[0]:.1%}, after {looks[-1]:.1%}\n", flush=True)
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("images.npy", "features.npy")]
        np.save(paths[0], images)
        np.save(paths[1], features)
        code = [sys.executable, "-c", SERVE, str((WORKDIR / "encoder").resolve()), *paths]
        subprocess.run(code, check=True, cwd=folder)
    print(
        "\nTry next:\n"
        "  keras-ssl pretrain --recipe simclr_laptop --data ~/Pictures --workdir runs/photos   # your own photos\n"
        "  keras-ssl pretrain --recipe swav_laptop --data digits --workdir runs/swav           # another method\n"
        "  tensorboard --logdir runs                                                           # watch it"
    )


if __name__ == "__main__":
    main()
