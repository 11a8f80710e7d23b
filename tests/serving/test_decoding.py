"""The `bytes` signature decodes side by side, as the trace of the C++ session shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.serving.conftest import encode, smooth

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "serving.py"


def test_pictures_are_decoded_at_once_but_no_more_than_four(root):
    spec = importlib.util.spec_from_file_location("latency", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    folder = root / "swav" / "2"
    files = np.array([encode(smooth(1500, 2000), "JPEG")] * 8, object)
    found = {}
    for threads in (1, 8):
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=threads, use_per_session_threads=True
        )
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
            signature = meta.signature_def["bytes"]
            fed, fetched = (
                signature.inputs["image_bytes"].name,
                signature.outputs["features"].name,
            )

            def call(files, session=session, fed=fed, fetched=fetched, **more):
                return session.run(fetched, {fed: files}, **more)

            call(files)
            found[threads] = max(benchmark.decoded_at_once(call, files) for _ in range(3))
    assert found[1] == 1
    assert 2 <= found[8] <= 4
