"""Measures what a sample stream costs at its start: `python benchmarks/stream.py --sizes 10000 1000000000`.

One row for each number of records, in a process of its own: seconds to the first batch (waiting and CPU time), and by
how much the process's memory grew up to then and over the next steps. The records are pictures made on demand, so that
only the stream is measured; with `--step` it starts where a resumed run would.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=[10**4, 10**6, 10**9])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--step", type=int, default=0, help="first step")
    parser.add_argument("--steps", type=int, default=50, help="steps after the first batch")
    parser.add_argument("--json", help="file to write the rows to")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def resident_mb() -> float:
    """Returns the memory of this process now, or its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(num_samples: int, options: argparse.Namespace) -> dict[str, float]:
    """Returns one row, measured in this process."""
    from PIL import Image

    from keras_ssl.data import EncodedSource, SampleStream

    file = io.BytesIO()
    Image.new("RGB", (32, 32), (10, 20, 30)).save(file, "PNG")

    class Virtual(EncodedSource):
        labels = None

        def record(self, index: int) -> bytes:
            return file.getvalue()

        def record_name(self, index: int) -> str:
            return str(index)

        def fingerprint(self) -> str:
            return str(self.num_samples)

    list(SampleStream(Virtual(1000), options.batch).dataset(0, 4))  # TensorFlow's own first time
    before, wall, cpu = resident_mb(), time.perf_counter(), time.process_time()
    stream = SampleStream(Virtual(num_samples), options.batch)
    elements = iter(stream.dataset(options.step, options.steps + 1))
    next(elements)
    row = {
        "records": num_samples,
        "first_batch_s": round(time.perf_counter() - wall, 3),
        "first_batch_cpu_s": round(time.process_time() - cpu, 3),
        "start_mb": round(resident_mb() - before, 1),
    }
    for _ in elements:
        pass
    return row | {"after_steps_mb": round(resident_mb() - before, 1)}


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    options = parse(arguments)
    if options.here:
        print(json.dumps(measure(options.sizes[0], options)))
        return []
    columns = ("records", "first_batch_s", "first_batch_cpu_s", "start_mb", "after_steps_mb")
    print("".join(f"{name:>18}" for name in columns))
    rows = []
    for size in options.sizes:
        again = ["--batch", options.batch, "--step", options.step, "--steps", options.steps]
        command = [sys.executable, __file__, "--here", "--sizes", size, *again]
        done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE)
        rows.append(json.loads(done.stdout))
        print("".join(f"{rows[-1][name]:>18,}" for name in columns), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
