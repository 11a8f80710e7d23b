"""Measures what the library adds to a training step: `python benchmarks/train_step.py --method simclr`.

For each method: `model.make_train_function()` against a step written by hand with `tf.GradientTape`, with the same
networks, heads, loss and optimizer, on the same ready-made views. What the library adds is dispatch over replicas,
clipping on the summed gradient, the check for overflow, and the reported scalars.

Both sides start from equal weights, and their first losses must agree, so both do the same work. They are timed in
turns; the ratio is the median over the turns of ours / by hand. `cpu_ratio` is that of the CPU time of all threads,
which hardly changes on a machine that is busy with other work. Every method runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

METHODS = ("simclr", "swav", "byol", "dino", "mae", "rotnet")
CHECKED_STEPS = 3
# Nothing frozen, so that a plain optimizer step is the same step.
SETTINGS = {"swav": {"freeze_prototypes_epochs": 0.0}, "dino": {"freeze_last_layer_epochs": 0.0}}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--method", nargs="*", choices=METHODS, default=METHODS, help="[all]")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step [64]")
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn [4]")
    parser.add_argument("--turns", type=int, default=7, help="turns of each side [7]")
    parser.add_argument("--json", metavar="FILE", help="file to write the rows to")
    parser.add_argument("--here", action="store_true", help="in this process; one method only")
    return parser.parse_args(arguments)


# The losses by hand: networks and heads of `m`, views `v`, to (loss, what the upkeep needs) --------------------


def flat(images):
    import tensorflow as tf

    return tf.reshape(images, [-1, *images.shape[2:]])


def simclr(m, v):
    import tensorflow as tf

    from keras_ssl import losses

    h = m.backbone(flat(v["global"]), training=True)["features"]
    z_a, z_b = tf.split(m.projector(h, training=True), 2)
    return losses.nt_xent_loss(z_a, z_b, temperature=m.temperature)[0], None


def swav(m, v):
    import tensorflow as tf

    from keras_ssl import layers, losses

    h = m.backbone(flat(v["global"]), training=True)["features"]
    z = losses.l2_normalize(m.projector(h, training=True))
    scores = tf.stack(tf.split(m.prototypes(z), 2), 1)  # (batch, view, prototypes)
    codes = [
        layers.sinkhorn_codes(
            tf.stop_gradient(scores[:, i]), epsilon=m.epsilon, iterations=m.sinkhorn_iterations
        )
        for i in range(2)
    ]
    return losses.swav_loss(scores, tf.stack(codes, 1), temperature=m.temperature), None


def byol(m, v):
    import tensorflow as tf

    from keras_ssl import losses

    p, t = [], []
    for x in (v["global"][0], v["global"][1]):
        z = m.projector(m.backbone(x, training=True)["features"], training=True)
        p.append(m.predictor(z, training=True))
        h = m.teacher_backbone(x, training=True)["features"]
        t.append(tf.stop_gradient(m.teacher_projector(h, training=True)))
    return losses.byol_loss(*p, *t), None


def dino(m, v):
    import tensorflow as tf

    from keras_ssl import losses

    x = flat(v["global"])
    h = m.backbone(x, training=True)["features"]
    z = losses.l2_normalize(m.projector(h, training=True))
    student = tf.stack(tf.split(m.last_layer(z), 2), 1)  # (batch, view, prototypes)
    h = m.teacher_backbone(x, training=True)["features"]
    z = losses.l2_normalize(m.teacher_projector(h, training=True))
    teacher = tf.stop_gradient(tf.stack(tf.split(m.teacher_last_layer(z), 2), 1))
    targets = losses.center_and_sharpen(
        teacher, center=m.center.value, temperature=m.teacher_temperature
    )
    loss = losses.dino_loss(student, targets, student_temperature=m.student_temperature)
    return loss, tf.reduce_mean(teacher, [0, 1])


def mae(m, v):
    import tensorflow as tf

    from keras_ssl import layers, losses, random

    images, count = v["global"][0], m.backbone.grid[0] * m.backbone.grid[1]
    keep, restore, mask = layers.random_keep_indices(
        random.fold_in(v["keys"], "mask"), count, m.mask_ratio
    )
    encoded = m.backbone(images, training=True, keep=keep)
    visible = tf.concat([encoded["features"][:, None], encoded["tokens"]], 1)
    prediction = m.decoder(visible, restore, training=True)
    target = layers.patchify(m.backbone.normalize(images), m.backbone.patch_size)
    return losses.mae_loss(prediction, losses.normalize_patches(target), mask), None


def rotnet(m, v):
    import tensorflow as tf

    from keras_ssl import losses

    logits = m.classifier(m.backbone(flat(v["rotations"]), training=True)["features"])
    labels = tf.repeat(tf.range(4), tf.shape(logits)[0] // 4)
    return losses.cross_entropy_loss(logits, labels), None


def step_by_hand(name, model, optimizer, total_steps, clip_norm):
    """Returns a compiled step `iterator -> loss` as one writes it without the library."""
    import tensorflow as tf

    from keras_ssl.optimizers import teacher_momentum

    loss_of = {f.__name__: f for f in (simclr, swav, byol, dino, mae, rotnet)}[name]
    variables = model.trainable_variables
    pairs = [
        (target, source)
        for teacher, student in model.ema_pairs
        for target, source in zip(teacher.weights, student.weights, strict=True)
        if any(source is variable for variable in variables)
    ]

    @tf.function
    def step(iterator):
        views = next(iterator)["views"]
        if name == "swav":
            kernel = model.prototypes.kernel
            kernel.assign(tf.math.l2_normalize(kernel, 1))
        count = tf.convert_to_tensor(optimizer.iterations)
        with tf.GradientTape() as tape:
            loss, mean = loss_of(model, views)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        optimizer.apply(gradients, variables)
        if pairs:
            momentum = teacher_momentum(count, total_steps, model.teacher_momentum)
            for target, source in pairs:
                target.assign(momentum * target + (1.0 - momentum) * source)
        if name == "dino":
            model.center.update(mean)
        return loss

    return step


# Measuring ----------------------------------------------------------------------------------------------------


def build_side(recipe, run):
    """Returns a bound model with the weights of the seed, and its optimizer."""
    import keras

    from keras_ssl import backbones
    from keras_ssl.methods import get_method
    from keras_ssl.pretraining import build

    keras.utils.set_random_seed(recipe.seed)
    backbone = backbones.build(
        recipe.backbone, image_size=recipe.image_size, **recipe.backbone_settings
    )
    model = get_method(recipe.method)(backbone, **recipe.method_settings)
    optimizer = build.build_optimizer(recipe, run.steps_per_epoch)
    model.compile(optimizer, views=build.build_views(recipe), clip_norm=recipe.clip_norm)
    model.bind(run)
    return model, optimizer


def measure(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Returns one row of the table."""
    import tensorflow as tf

    from keras_ssl.methods import RunInfo
    from keras_ssl.pretraining.recipe import resolve

    settings = {"batch_size": options.batch_size, **SETTINGS.get(name, {})}
    recipe, _ = resolve(recipe=f"{name}_laptop", data="noise", **settings)
    per_epoch = 100
    total = per_epoch * recipe.epochs
    run = RunInfo(per_epoch * recipe.batch_size, per_epoch, total, recipe.batch_size)
    ours, _ = build_side(recipe, run)
    other, optimizer = build_side(recipe, run)
    size = (recipe.batch_size, recipe.image_size, recipe.image_size, 3)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    position = tf.range(recipe.batch_size, dtype=tf.int64)
    views = ours.make_views({"inputs": {"image": tf.constant(noise)}, "position": position})
    batches = tf.data.Dataset.from_tensors({"views": views, "position": position}).repeat()
    train = ours.make_train_function()
    by_hand = step_by_hand(name, other, optimizer, total, recipe.clip_norm)
    sides = {
        "ours": (lambda batch: train(batch)["loss"], iter(batches)),
        "by hand": (by_hand, iter(batches)),
    }
    losses = {
        side: [float(step(batch)) for _ in range(CHECKED_STEPS)]
        for side, (step, batch) in sides.items()
    }
    if not np.allclose(losses["ours"], losses["by hand"], rtol=1e-3):
        raise RuntimeError(f"Expected equal losses of both sides of {name}. Received: {losses}")
    row = {"method": name, "backbone": recipe.backbone, "batch": recipe.batch_size}
    return row | compare(sides, options.turns, options.steps)


def compare(sides, turns: int, steps: int) -> dict[str, object]:
    """Times the two sides in turns and returns medians."""
    wall, cpu = ({side: [] for side in sides} for _ in range(2))
    for turn in range(turns):
        for side in list(sides)[:: 1 if turn % 2 else -1]:
            step, batch = sides[side]
            begin, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                loss = step(batch)
            float(loss)  # waits for the last step
            wall[side].append((time.perf_counter() - begin) / steps)
            cpu[side].append((time.process_time() - used) / steps)
    ratios, cpu_ratios = (
        [ours / plain for ours, plain in zip(spent["ours"], spent["by hand"], strict=True)]
        for spent in (wall, cpu)
    )
    return {
        "ours_ms": round(1e3 * statistics.median(wall["ours"]), 1),
        "by_hand_ms": round(1e3 * statistics.median(wall["by hand"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
    }


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Returns the row of a method measured by a new process."""
    numbers = {
        "batch-size": options.batch_size,
        "steps": options.steps,
        "turns": options.turns,
    }
    flags = [word for flag, value in numbers.items() for word in (f"--{flag}", str(value))]
    command = [sys.executable, __file__, "--here", "--method", name, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    options = parse(arguments)
    if options.here:
        print(json.dumps(measure(options.method[0], options)))
        return []
    columns = ("method", "backbone", "batch", "ours_ms", "by_hand_ms", "ratio", "cpu_ratio")
    print("".join(f"{title:>13}" for title in columns))
    rows = []
    for name in options.method:
        row = in_own_process(name, options)
        rows.append(row)
        print("".join(f"{row[title]:>13}" for title in columns), flush=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
