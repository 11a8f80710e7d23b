"""Measures what an input service costs: `python benchmarks/input_service.py --data photos/ --views simclr`.

The same batches made in this process, and by one worker on this machine, with its views and as images alone. Beside
images per second it gives the CPU time of both sides for a thousand images, which also holds on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="digits", help="images, as for keras-ssl pretrain")
    parser.add_argument("--views", default="simclr_cifar", help="recipe of views")
    parser.add_argument("--batch", type=int, default=256, help="images in a batch")
    parser.add_argument("--batches", type=int, default=60, help="how many are timed in each row")
    parser.add_argument("--json", help="file to write the rows to")
    return parser.parse_args(arguments)


def start(*arguments: str) -> tuple[subprocess.Popen, str]:
    """Returns a server and the line that says it is ready."""
    command = [sys.executable, "-m", "keras_ssl.cli", "input-service", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    lines = (line.strip() for line in process.stderr)
    return process, next(line for line in lines if line.startswith(arguments[0]))


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of another process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(dataset, batches: int, batch: int, worker: int | None) -> dict[str, float]:
    """Returns the rate and the CPU time of both sides for a thousand images."""
    iterator = iter(dataset.prefetch(2))
    for _ in range(5):  # traces, fills the buffers
        next(iterator)
    wall, here = time.perf_counter(), time.process_time()
    there = cpu_seconds(worker) if worker else 0.0
    for _ in range(batches):
        next(iterator)
    images = batches * batch
    wall, here = time.perf_counter() - wall, time.process_time() - here
    there = cpu_seconds(worker) - there if worker else 0.0
    return {
        "images_per_second": round(images / wall),
        "cpu_s_here_per_1000": round(1000 * here / images, 3),
        "cpu_s_worker_per_1000": round(1000 * there / images, 3),
    }


def main(arguments: list[str] | None = None) -> None:
    flags = parse(arguments)
    from keras_ssl import views
    from keras_ssl.data import SampleStream, open_source, service
    from keras_ssl.pretraining.build import on_host

    recipe = views.get(flags.views)
    engine = views.ViewEngine(recipe, kernel="host")
    source = open_source(flags.data, view_size=views.main_size(recipe))
    stream = SampleStream(source, flags.batch)
    dispatcher, line = start("dispatcher", "--port", "0")
    address = f"127.0.0.1:{line.split()[-1]}"
    worker, _ = start("worker", "--dispatcher", address, "--data", flags.data)
    rows = []
    try:
        for content in ("images", "views"):
            for where in ("local", "service"):
                dataset = stream.dataset(remote=where == "service")
                if content == "views":
                    dataset = dataset.map(lambda b: on_host(b, engine, 0), num_parallel_calls=2)
                pid = worker.pid if where == "service" else None
                if pid:
                    dataset = service.through_service(dataset, address)
                rates = measure(dataset, flags.batches, flags.batch, pid)
                rows.append({"content": content, "where": where, **rates})
                print(rows[-1], flush=True)
    finally:
        worker.kill()
        dispatcher.kill()
    if flags.json:
        Path(flags.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
