"""Writes what was measured into README.md, benchmarks/README.md and docs/parity.md: `python benchmarks/report.py`.

With `--check` it only compares. Every number comes from a file in `docs/benchmarks/`, which the scripts of this folder
write.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"
RECIPES = {
    "simclr_cifar": "SimCLR 2x32",
    "simclr": "SimCLR 2x224",
    "swav": "SwAV 2x224 + 6x96",
    "dino": "DINO 2x224 + 8x96",
}


def read(name: str) -> dict | None:
    path = ROOT / "docs" / "benchmarks" / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def views() -> list[str]:
    """The table of the view engine beside its peer."""
    content = read("views")
    where = content["environment"]
    peer = where["peer_side"]
    found = {(row["recipe"], row["side"], row["decode"]): row for row in content["rows"]}
    rows = []
    for recipe, title in RECIPES.items():
        cells = [title]
        for decode in (False, True):
            mine, theirs = (found[recipe, side, decode] for side in ("keras_ssl", "peer"))
            cells += [
                f"{mine['images_per_s_per_core']:,.0f} / {theirs['images_per_s_per_core']:,.0f}",
                f"{theirs['ratio']:.1f}",
            ]
        rows.append(cells)
    head = ["views", "here / peer, images/s", "ratio", "from JPEG, here / peer", "ratio"]
    return [
        f"Making views, for each second of one core's time, beside lightly {peer['lightly']} on torchvision and Pillow "
        f"(both on the same {where['processor']}, in turns; load {where['load_average']:.0f}):",
        "",
        *table(head, rows),
    ]


def step() -> list[str]:
    """The table of a training step beside bare TensorFlow and PyTorch."""
    content = read("step_peer")
    if content is None:
        return []
    names = {"ours": "`keras_ssl`", "tensorflow": "bare TensorFlow", "pytorch": "PyTorch"}
    rows = [
        [
            f"{names[row['side']]} {row['version']}" if row["side"] != "ours" else names["ours"],
            f"{row['width']:g}",
            f"{row['per_core']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['share']:.0%}",
        ]
        for row in content["rows"]
    ]
    head = ["SimCLR step", "width", "images/s of one core", "here / there", "of the product rate"]
    batch = content["machine"]["batch_size"]
    return [
        "",
        f"A training step of SimCLR with ResNet-18 (small-image stem, batch {batch}, both views), and the share of the "
        "rate of one large matrix product in the same process that its arithmetic reaches:",
        "",
        *table(head, rows),
    ]


def overhead() -> list[str]:
    """The sentence on what the library adds to a step written by hand."""
    rows = read("train_step")
    if rows is None:
        return []
    ratios = ", ".join(f"{row['method']} {row['cpu_ratio']:.2f}" for row in rows)
    return ["", f"CPU time of a step over one written by hand with `tf.GradientTape`: {ratios}."]


def memory() -> list[str]:
    """The sentence on the largest batch that was trained in micro-batches."""
    content = read("memory")
    rows = [row for row in (content or {}).get("rows", []) if row["micro"]]
    if not rows:
        return []
    row = max(rows, key=lambda row: row["batch"] * row["size"] ** 2)
    return [
        "",
        f"Memory: a SimCLR step with ResNet-18, {row['size']} pixels and a batch of {row['batch']:,} in micro-batches "
        f"of {row['micro']} peaked at {row['peak_mb'] / 1024:.1f} GiB for the whole process.",
    ]


def starved() -> list[str]:
    """The sentence on what the input pipeline costs a step."""
    content = read("input")
    if content is None:
        return []
    costs = ", ".join(
        f"{row['recipe']} {row['cpu_slower']:.1%} ({row['backbone']}, batch {row['batch']})"
        for row in content["rows"]
    )
    return [
        "",
        f"CPU time that reading and views at 32 pixels add to a step on ready-made views: {costs}.",
    ]


def fine_tuned() -> list[str]:
    """The sentence on fine-tuning with few labels."""
    row = read("finetune")
    if row is None:
        return []
    return [
        "",
        f"Fine-tuning (`examples/finetune.py {row['encoder']} --data {row['data']}`, {row['labels']} labels, "
        f"{row['steps']} steps): {row['pre_trained']:.1%} of {row['test_images']:,} test images from the encoder, "
        f"{row['from_scratch']:.1%} from scratch.",
    ]


def step_table() -> list[str]:
    """The table of a step of each method beside one written by hand."""
    rows = [
        [
            row["method"],
            row["backbone"],
            f"{row['ours_ms']:.0f}",
            f"{row['by_hand_ms']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu_ratio']:.2f}",
        ]
        for row in read("train_step") or ()
    ]
    head = ["method", "backbone", "library, ms", "by hand, ms", "ratio", "ratio of CPU time"]
    return [
        "A training step at 32 pixels and batch 64 beside one written by hand, in turns; `ratio` is the median over "
        "the turns, not the ratio of the two medians, and above 1 the library is slower "
        "(`docs/benchmarks/train_step.json`). The first three losses of both sides agree to a thousandth, or the "
        "script stops:",
        "",
        *table(head, rows),
    ]


def memory_table() -> list[str]:
    """The table of the memory of a SimCLR step."""

    def order(row: dict) -> tuple:
        return row["backbone"], row["size"], row["micro"] or 0, row["batch"], row["recompute"]

    rows = [
        [
            row["backbone"],
            str(row["size"]),
            f"{row['batch']:,}",
            str(row["micro"] or "at once"),
            "yes" if row["recompute"] else "no",
            f"{row['step_mb']:,}",
            f"{row['peak_mb']:,}",
        ]
        for row in sorted(read("memory")["rows"], key=order)
    ]
    head = ["backbone", "pixels", "batch", "micro-batch", "recomputed", "step, MiB", "process, MiB"]
    return [
        "",
        "Memory of one SimCLR step, views made in the step: what it had above what the process had before it, the "
        "compiled step included, and the most of the whole process (`docs/benchmarks/memory.json`):",
        "",
        *table(head, rows),
    ]


def parity_table() -> list[str]:
    """The table of the differences between converted networks and their references."""
    content = read("parity")
    rows = [
        [
            f"`{row['layout']}`",
            row["name"],
            row["reference"],
            str(row["tensors"]),
            str(row["left_out"]),
            ", ".join(map(str, row["sizes"])),
            f"{row['absolute']:.1e}",
            f"{row['relative']:.1e}",
        ]
        for row in content["rows"]
    ]
    head = [
        "layout",
        "network",
        "reference",
        "tensors",
        "left out",
        "sizes",
        "absolute",
        "relative",
    ]
    worst = max(row["relative"] for row in content["rows"])
    return [
        f"{len(rows)} networks, largest relative difference {worst:.1e}.",
        "",
        *table(head, rows),
    ]


def section(document: str) -> str:
    """Returns the section of a document between its two marks."""
    parts = {
        "README.md": lambda: [*views(), *step(), *overhead(), *starved(), *memory(), *fine_tuned()],
        "benchmarks/README.md": lambda: [*step_table(), *memory_table()],
        "docs/parity.md": parity_table,
    }
    return "\n".join([BEGIN, *parts[document](), END])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a file is old")
    flags = parser.parse_args()
    changed = False
    for document in ("README.md", "benchmarks/README.md", "docs/parity.md"):
        path = ROOT / document
        old = path.read_text(encoding="utf-8")
        if BEGIN not in old:
            raise SystemExit(f"Expected the mark {BEGIN} in {document}. Received: none.")
        new = re.sub(f"{BEGIN}.*?{END}", lambda _, name=document: section(name), old, flags=re.S)
        changed = changed or new != old
        if not flags.check:
            path.write_text(new, encoding="utf-8")
    return int(changed and flags.check)


if __name__ == "__main__":
    raise SystemExit(main())
