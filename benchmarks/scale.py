"""Works out what a billion images need: `python benchmarks/scale.py` writes the tables of `docs/scale.md`.

Input rates come from `docs/benchmarks/views.json`; the cost of an index, of a checkpoint and of the order of samples is
measured here, in seconds. Rates of accelerators are the authors' own, quoted with their source. Everything else is
arithmetic on the shapes of the networks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGES, IMAGE_BYTES = 10**9, 100_000  # ImageNet's JPEGs are about 110 kB each
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"
LATENCY = 20e-6  # seconds a collective, assumed
# Bytes a second that one accelerator can send, assumed: PCIe 4; an eighth of a host's 100 Gbit/s; a pod's own links.
PCIE, NETWORK, POD = 12.5e9, 12.5e9 / 8, 100e9

# facebookresearch/swav README: 2x224 + 6x96, batch 4096, 64 V100, 3 min 40 s for 1,281,167 images.
SWAV_V100 = 1_281_167 / 220 / 64
# Chen et al. 2020, section 2.2: ResNet-50, batch 4096, 100 epochs in about 1.5 hours on 128 TPU v3 cores.
SIMCLR_TPU_V3 = 1_281_167 * 100 / (1.5 * 3600) / 128

SETUPS = {  # name: (accelerators, accelerators of a host, images/s of one, its link, global batch, method)
    "8 GPUs": (8, 8, SWAV_V100, PCIE, 512, "swav"),
    "64 GPUs": (64, 8, SWAV_V100, NETWORK, 4096, "swav"),
    "v4-256 pod": (256, 8, SIMCLR_TPU_V3, POD, 4096, "simclr"),
}


def measure_index(count: int = 20_000) -> dict[str, float]:
    """Returns bytes of memory for each record of a folder's list and of an index of byte offsets."""
    import tracemalloc

    import numpy as np

    from keras_ssl.data.folder import FolderSource

    with tempfile.TemporaryDirectory() as folder:
        picture = bytes.fromhex(  # the smallest GIF: 1x1
            "47494638396101000100800000000000ffffff2c00000000010001000002024401003b"
        )
        for shard in range(count // 1000):
            directory = Path(folder) / f"n{shard:08d}"
            directory.mkdir()
            for index in range(1000):
                (directory / f"n{shard:08d}_{index:05d}.gif").write_bytes(picture)
        tracemalloc.start()
        source = FolderSource(folder)
        folder_bytes = tracemalloc.get_traced_memory()[0] / source.num_samples
        tracemalloc.stop()
    return {"folder": folder_bytes, "offsets": float(np.dtype(np.int64).itemsize)}


def measure_order() -> float:
    """Returns how many record numbers a second the shuffled order gives, for a billion records."""
    import numpy as np
    import tensorflow as tf

    from keras_ssl.data import SampleStream
    from keras_ssl.data.arrays import ArraySource

    source = ArraySource(np.zeros((1, 8, 8, 3), np.uint8))
    source.num_samples = IMAGES  # the order asks for no more than their number
    stream = SampleStream(source, 4096)
    records = tf.function(stream.records)
    positions = tf.range(4096, dtype=tf.int64)
    records(positions)
    begin = time.process_time()
    for _ in range(20):
        records(positions).numpy()
    return 20 * 4096 / (time.process_time() - begin)


def measure_checkpoint(megabytes: int = 100) -> float:
    """Returns the bytes a second that a flushed checkpoint takes on this disk."""
    import keras
    import numpy as np

    from keras_ssl.pretraining.checkpoints import Checkpoints

    noise = np.random.default_rng(0).normal(size=megabytes * 2**18).astype(np.float32)
    variable = keras.Variable(noise)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        keeper = Checkpoints(Path(folder), [variable], "scale", recipe={})
        begin = time.perf_counter()
        keeper.save(1, {})
        return megabytes * 2**20 / (time.perf_counter() - begin)


def network(views: str) -> dict[str, float]:
    """Returns the sizes of ResNet-50 with the heads of a method, read off the network itself."""
    from keras_ssl import backbones, methods

    backbone = backbones.build("resnet50")
    model = methods.SwAV(backbone) if views == "swav" else methods.SimCLR(backbone)
    norms = [v.shape[0] for v in model.trainable_variables if v.name == "gamma"]
    return {
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "norms": len(norms),
        "norm_channels": sum(norms),
    }


def work_out(setup: str, constants: dict) -> dict[str, str]:
    """Returns one column of the table."""
    chips, per_host, rate, link, batch, views = SETUPS[setup]
    sizes, hosts = network(views), max(1, chips // per_host)
    total = rate * chips
    step = batch / total
    cores = math.ceil(total / constants["input"][views])
    gradient = 4 * sizes["parameters"]
    share = 2 * (chips - 1) / chips
    norms = 2 * 2 * sizes["norms"]  # two reductions forward, two backward
    moved = share * (gradient + 4 * 4 * sizes["norm_channels"])
    network_time = moved / link + norms * LATENCY
    state = 4 * sizes["parameters"] * 2  # weights and momentum
    return {
        "global batch": f"{batch:,}",
        "images/s, at the authors' rate": f"{total:,.0f}",
        "days for one pass": f"{IMAGES / total / 86400:.1f}",
        "steps of one pass": f"{IMAGES // batch:,}",
        "seconds a step": f"{step:.2f}",
        "CPU cores for input, all hosts": f"{cores:,.0f}",
        "CPU cores for input, each host": f"{math.ceil(cores / hosts):,}",
        "bytes read, MB/s each host": f"{total * IMAGE_BYTES / hosts / 1e6:,.0f}",
        "memory of a folder's list, GB each host": f"{IMAGES * constants['index']['folder'] / 1e9:,.0f}",
        "memory of byte offsets, GB each host": f"{IMAGES * constants['index']['offsets'] / 1e9:,.0f}",
        "order of samples, share of one core": f"{total / constants['order']:.1%}",
        "checkpoint, GB": f"{state / 1e9:.2f}",
        "checkpoint, seconds at this disk's rate": f"{state / constants['checkpoint']:.1f}",
        "gradient and batch-norm, MB a step and replica": f"{moved / 1e6:,.0f}",
        "communication, share of a step": f"{network_time / step:.1%}",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--views", default=str(ROOT / "docs/benchmarks/views.json"))
    parser.add_argument("--page", default=str(ROOT / "docs/scale.md"))
    parser.add_argument("--json", default=str(ROOT / "docs/benchmarks/scale.json"))
    flags = parser.parse_args(arguments)
    measured = json.loads(Path(flags.views).read_text())
    constants = {
        "input": input_rates(measured),
        "index": measure_index(),
        "order": measure_order(),
        "checkpoint": measure_checkpoint(),
    }
    columns = {setup: work_out(setup, constants) for setup in SETUPS}
    rows = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name in next(iter(columns.values())):
        rows.append(f"| {name} | {' | '.join(column[name] for column in columns.values())} |")
    page = Path(flags.page)
    text = page.read_text(encoding="utf-8")
    block = "\n".join([BEGIN, *rows, END])
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.S), encoding="utf-8")
    Path(flags.json).write_text(json.dumps({**constants, "table": columns}, indent=1) + "\n")
    print("\n".join(rows))


def input_rates(measured: dict) -> dict[str, float]:
    """Returns images per second and core with decoding, of the recipes that the table needs."""
    return {
        row["recipe"]: row["images_per_s_per_core"]
        for row in measured["rows"]
        if row["side"] == "keras_ssl" and row["decode"] and row["recipe"] in ("swav", "simclr")
    }


if __name__ == "__main__":
    main()
