"""Measures an exported encoder: `python benchmarks/serving.py --json docs/benchmarks/serving.json`.

One encoder, called in four ways on the same images, in turns: `signature`, the exported folder's `serving_default`
through `tf.saved_model.load`; `session`, the same through the C++ session that TensorFlow Serving uses; `concrete`, the
network's bare concrete function, not exported; `predict`, `encoder.predict`. One process for each number of threads,
bound to as many cores. What is reported is the median over the rounds of each way's time over that of `concrete`: above
1 is slower.

A second table is what decoding costs in the `bytes` signature, for a batch of 16 photographs of 640 x 427 pixels:
processor time for each picture, and how many pictures were decoded at one moment, from the trace of the C++ session.

The tables are also written between the marks of `docs/serving.md`; `--table` writes them without measuring.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
PAGE, DATA = ROOT / "docs" / "serving.md", ROOT / "docs" / "benchmarks" / "serving.json"
BEGIN, END = "<!-- latency: begin -->", "<!-- latency: end -->"
SIDES = ("signature", "session", "predict")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--json", metavar="FILE", help="where the rows go; also renews docs/serving.md"
    )
    parser.add_argument("--table", action="store_true", help="only renew docs/serving.md")
    parser.add_argument("--here", type=int, metavar="THREADS", help="measure in this process")
    return parser.parse_args(arguments)


def timed(call) -> tuple[float, float]:
    """Returns waiting time and processor time of a call, seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(options: argparse.Namespace, threads: int) -> dict[str, list]:
    """Returns the rows of one number of threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from keras_ssl import backbones, export

    size = options.image_size
    encoder = backbones.build(options.backbone, image_size=size)
    with tempfile.TemporaryDirectory() as folder:
        folder = export.export_encoder(encoder, Path(folder) / "encoder")
        module = tf.saved_model.load(str(folder))
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
        )
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
    spec = tf.TensorSpec((None, size, size, 3), tf.float32)
    concrete = tf.function(lambda x: encoder(x, training=False)).get_concrete_function(spec)
    served, signature = module.signatures["serving_default"], meta.signature_def["serving_default"]
    fed, fetched = signature.inputs["images"].name, signature.outputs["features"].name
    calls = {
        "concrete": lambda images, tensor: concrete(tensor)["features"].numpy(),
        "signature": lambda images, tensor: served(images=tensor)["features"].numpy(),
        "session": lambda images, tensor: session.run(fetched, {fed: images}),
        "predict": lambda images, tensor: encoder.predict(
            images, batch_size=len(images), verbose=0
        )["features"],
    }
    rows = [
        {"threads": threads, "batch": batch, **ratios(calls, batch, size, options.rounds)}
        for batch in options.batches
    ]
    signature = meta.signature_def["bytes"]
    fed, fetched = signature.inputs["image_bytes"].name, signature.outputs["features"].name
    row = decoding(lambda files, **more: session.run(fetched, {fed: files}, **more), options)
    return {"rows": rows, "decoding": [{"threads": threads, **row}]}


def ratios(calls: dict, batch: int, size: int, rounds: int) -> dict[str, float]:
    """Returns the time of each side over that of the concrete function, for one batch."""
    import numpy as np
    import tensorflow as tf

    images = np.random.default_rng(0).random((batch, size, size, 3)).astype(np.float32)
    tensor = tf.constant(images)
    first = [call(images, tensor) for call in calls.values()]
    worst = max(float(np.abs(first[0] - other).max()) for other in first[1:])
    if not worst < 1e-3 * np.abs(first[0]).max():
        raise SystemExit(f"The sides do not agree: features differ by {worst}.")
    found = {name: [] for name in calls}
    for number in range(rounds + 1):
        order = list(calls)[number % 4 :] + list(calls)[: number % 4]
        for name in order:
            result = timed(lambda call=calls[name]: call(images, tensor))
            if number:  # the first round fills caches
                found[name].append(result)
    row = {}
    for name in SIDES:
        for place, key in ((0, name), (1, f"{name}_cpu")):
            pairs = zip(found[name], found["concrete"], strict=True)
            row[key] = round(statistics.median(a[place] / max(b[place], 1e-9) for a, b in pairs), 2)
    return row


def decoding(call, options: argparse.Namespace) -> dict[str, object]:
    """Returns what decoding 16 photographs costs, and how many are decoded at once.

    Args:
        call: function of an array of encoded pictures, and of `options` and `run_metadata` of a session's `run`.
        options: the command's.
    """
    import numpy as np
    import tensorflow as tf
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from keras_ssl.evaluation.features import default_crop_ratio
    from keras_ssl.export.decode import decode_batch

    buffer = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(buffer, "JPEG", quality=92)
    files, size = np.array([buffer.getvalue()] * 16, object), options.image_size
    ratio, spec = default_crop_ratio(size), tf.TensorSpec((None,), tf.string)
    decode = tf.function(lambda x: decode_batch(x, size, ratio), input_signature=[spec])
    tensor = tf.constant(files)
    decode(tensor)
    times = [timed(lambda: decode(tensor)) for _ in range(options.rounds)]
    call(files)
    return {
        "cpu_ms": round(1000 * statistics.median(cpu for _, cpu in times) / 16, 2),
        "at_once": max(decoded_at_once(call, files) for _ in range(options.rounds)),
    }


def decoded_at_once(call, files) -> int:
    """Returns the largest number of JPEGs that were being decoded at one moment of a call.

    Args:
        call: as for `decoding`.
        files: object array of JPEGs.
    """
    import tensorflow as tf

    trace = tf.compat.v1.RunMetadata()
    full = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    call(files, options=full, run_metadata=trace)
    spans = [
        (node.all_start_micros, node.all_start_micros + node.op_end_rel_micros)
        for device in trace.step_stats.dev_stats
        for node in device.node_stats
        if node.node_name.split("/")[-1].startswith("DecodeJpeg")
    ]
    if len(spans) != len(files):
        raise SystemExit(f"Expected {len(files)} decoded pictures in the trace, not {len(spans)}.")
    return max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)


def environment(options: argparse.Namespace) -> dict[str, object]:
    from importlib.metadata import version

    return {
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "backbone": options.backbone,
        "image_size": options.image_size,
        "batches": options.batches,
        "threads": options.threads,
        "rounds": options.rounds,
        "date": time.strftime("%Y-%m-%d"),
    }


def command(where: dict) -> str:
    """Returns the command that measures what an `environment` says was measured."""
    batches, threads = (" ".join(map(str, where[key])) for key in ("batches", "threads"))
    return (
        f"python benchmarks/serving.py --backbone {where['backbone']} --image-size {where['image_size']} "
        f"--batches {batches} --threads {threads} --rounds {where['rounds']} --json docs/benchmarks/serving.json"
    )


def tables(content: dict) -> str:
    """Returns the Markdown of both tables, with what they were measured on."""
    where = content["environment"]
    lines = [
        BEGIN,
        f"Written by `{command(where)}`.",
        "",
        f"{where['backbone']} at {where['image_size']} pixels, TensorFlow {where['tensorflow']}, {where['rounds']} "
        f"rounds in turns; other work kept the machine at a load of {where['load_average']:.0f} on {where['cores']} "
        "cores, so only ratios are shown: time over that of the network's bare concrete function, waiting / processor.",
        "",
        "| threads | batch | signature | C++ session | `encoder.predict` |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in content["rows"]:
        cells = [f"{row[side]:.2f} / {row[side + '_cpu']:.2f}" for side in SIDES]
        lines.append(f"| {row['threads']} | {row['batch']} | {' | '.join(cells)} |")
    lines += [
        "",
        "Decoding in the `bytes` signature, a batch of 16 JPEGs of 640 x 427 pixels:",
        "",
        "| threads | processor time of a picture, ms | pictures decoded at once |",
        "| ---: | ---: | ---: |",
        *(
            f"| {row['threads']} | {row['cpu_ms']:.2f} | {row['at_once']} |"
            for row in content["decoding"]
        ),
        END,
    ]
    return "\n".join(lines)


def renew_page(content: dict) -> None:
    text = PAGE.read_text(encoding="utf-8")
    if BEGIN not in text:
        raise SystemExit(f"Expected the mark {BEGIN} in {PAGE}. Received: none.")
    new = re.sub(f"{BEGIN}.*?{END}", lambda _: tables(content), text, flags=re.S)
    PAGE.write_text(new, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.here:
        print(json.dumps(measure(options, options.here)))
        return
    if options.table:
        renew_page(json.loads(DATA.read_text()))
        return
    content = {"environment": environment(options), "rows": [], "decoding": []}
    for threads in options.threads:
        passed = [f"--backbone={options.backbone}", f"--image-size={options.image_size}"]
        passed += [f"--rounds={options.rounds}", "--batches", *map(str, options.batches)]
        command = [sys.executable, __file__, f"--here={threads}", *passed]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        for key, rows in found.items():
            content[key] += rows
            for row in rows:
                print(key, row, flush=True)
    if options.json:
        path = Path(options.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = {
            key: ",\n".join(f"  {json.dumps(row)}" for row in content[key])
            for key in ("rows", "decoding")
        }
        path.write_text(
            f'{{"environment": {json.dumps(content["environment"])},\n "rows": [\n{lines["rows"]}\n],\n'
            f' "decoding": [\n{lines["decoding"]}\n]}}\n'
        )
        renew_page(content)


if __name__ == "__main__":
    main()
