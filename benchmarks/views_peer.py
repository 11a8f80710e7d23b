"""The other side of `views.py --peer`: lightly's transforms (torchvision on Pillow images), one thread.

`views.py` starts this file in an interpreter that has torch, torchvision and lightly, and writes one line
of JSON for each request to its standard input. It needs nothing of this library.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image


def transform_of(case: str):
    """Returns lightly's transform of a case, with the settings of this library's recipe.

    Its closing normalization of colors is left out, since the views measured against it have none.
    """
    from lightly import transforms

    if case == "simclr_cifar":
        return transforms.SimCLRTransform(
            input_size=32, cj_strength=0.5, gaussian_blur=0.0, normalize=None
        )
    if case == "simclr":
        return transforms.SimCLRTransform(input_size=224, normalize=None)
    if case == "swav":
        return transforms.SwaVTransform(crop_counts=(2, 6), normalize=None)
    if case == "dino":
        return transforms.DINOTransform(n_local_views=8, normalize=None)
    raise ValueError(f"No such case. Received: case={case!r}")


class Case:
    """One transform with its images, decoded beforehand or in every pass."""

    def __init__(self, case: str, folder: str, decode: bool) -> None:
        self.transform = transform_of(case)
        files = sorted(Path(folder).glob("*.jpg"))
        self.encoded = [file.read_bytes() for file in files]
        if decode:
            self.pictures = None
        else:
            self.pictures = [
                Image.fromarray(np.load(file)) for file in sorted(Path(folder).glob("*.npy"))
            ]

    def step(self) -> int:
        """Makes the views of every image once and returns the number of images."""
        count = 0
        for picture in self.pictures or self.encoded:
            if isinstance(picture, bytes):
                with Image.open(io.BytesIO(picture)) as opened:
                    picture = opened.convert("RGB")
            views = self.transform(picture)
            count += len(views) > 0
        return count


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Returns images per second of wall time and of CPU time."""
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count == 0 or time.perf_counter() - wall < seconds:
        count += case.step()
    return {
        "images_per_s": count / (time.perf_counter() - wall),
        "images_per_s_per_core": count / (time.process_time() - cpu),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    import lightly
    import PIL
    import torch
    import torchvision

    torch.set_num_threads(1)
    modules = {"torch": torch, "torchvision": torchvision, "lightly": lightly, "Pillow": PIL}
    print(json.dumps({name: module.__version__ for name, module in modules.items()}), flush=True)
    cases: dict[str, Case] = {}
    for line in sys.stdin:
        request = json.loads(line)
        seconds = request.pop("seconds")
        key = json.dumps(request)
        if key not in cases:
            cases[key] = Case(**request)
            cases[key].step()
        print(json.dumps(measure(cases[key], seconds)), flush=True)


if __name__ == "__main__":
    main()
