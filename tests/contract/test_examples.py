"""The examples in the docstrings of the methods."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pytest

from keras_ssl.methods import METHODS, get_method

QUICK = ("rotnet",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in METHODS
    ],
)
def test_the_example_of_the_docstring_runs(name):
    """With fewer images, epochs and prototypes; otherwise as it stands there."""
    doc = textwrap.dedent(get_method(name).__doc__)
    lines = re.findall(r"^ +>>> (.*)$", doc, re.MULTILINE)
    assert len(lines) == 5 and lines[0] == "import keras_ssl"
    code = "\n".join(lines)
    for old, new in ((r"epochs=\d+", "epochs=1"), (r"batch_size=\d+", "batch_size=8")):
        code, count = re.subn(old, new, code)
        assert count == 1
    code = re.sub(r"num_prototypes=\d+", "num_prototypes=16", code)
    pictures = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    found = {"images": pictures}
    exec(code, found)
    model, features = found["model"], found["features"]
    assert int(model.step) == 2
    assert features.shape == (16, model.backbone.feature_dim) and np.isfinite(features).all()
    assert features.std() > 0
