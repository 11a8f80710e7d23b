"""The three sides of `benchmarks/step_peer.py`: one network, one loss, one optimizer, written three times.

Each side is a function of the width and of the batch size. It returns a function that takes one step, waits for it and
returns the loss.
"""

from __future__ import annotations

STAGES = (64, 128, 256, 512)
PROJECTION, TEMPERATURE, RATE, SIDE = 128, 0.5, 1e-3, 32


def channels(width: float) -> list[int]:
    return [round(width * count) for count in STAGES]


def blocks(width: float) -> list[tuple[int, int, int]]:
    """Returns (channels in, channels out, stride) of the eight basic blocks."""
    rows, before = [], channels(width)[0]
    for stage, count in enumerate(channels(width)):
        rows += [(before, count, 2 if stage else 1), (count, count, 1)]
        before = count
    return rows


def arithmetic(width: float) -> float:
    """Returns the floating-point operations of a training step for one image, both views."""
    side, total = SIDE, 9 * 3 * channels(width)[0] * SIDE**2
    for count_in, count_out, stride in blocks(width):
        side //= stride
        total += 9 * count_out * (count_in + count_out) * side**2
        total += count_in * count_out * side**2 * (stride != 1 or count_in != count_out)
    last = channels(width)[-1]
    return 2 * 2 * 3 * (total + last * last + last * PROJECTION)


def ours(width: float, batch: int):
    import keras
    import tensorflow as tf

    from keras_ssl import backbones
    from keras_ssl.methods import RunInfo, SimCLR
    from keras_ssl.optimizers import SGD

    keras.utils.set_random_seed(0)
    model = SimCLR(
        backbones.build("resnet18", image_size=SIDE, width=width), temperature=TEMPERATURE
    )
    model.compile(SGD(RATE, momentum=0.0))
    model.bind(RunInfo(batch * 10, 10, 100, batch))
    keys = tf.zeros((batch, 2), tf.uint32)
    views = {"global": tf.random.uniform((2, batch, SIDE, SIDE, 3)), "keys": keys}
    batches = iter(tf.data.Dataset.from_tensors({"views": views}).repeat())
    train = model.make_train_function()
    return lambda: float(train(batches)["loss"])


def tensorflow(width: float, batch: int):
    import tensorflow as tf

    variables: list[tf.Variable] = []

    def weight(shape: tuple[int, ...], start: str) -> tf.Variable:
        deviation = (2.0 / max(1, shape[-1] * (shape[0] ** 2 if len(shape) == 4 else 1))) ** 0.5
        value = {"ones": tf.ones, "zeros": tf.zeros}.get(
            start, lambda shape: tf.random.normal(shape, stddev=deviation)
        )(shape)
        variables.append(tf.Variable(value))
        return variables[-1]

    def norm(count: int):
        gamma, beta = weight((count,), "ones"), weight((count,), "zeros")
        means = tf.Variable(tf.zeros(count)), tf.Variable(tf.ones(count))

        def apply(x):
            four = x if x.shape.rank == 4 else x[:, None, None]
            y, *now = tf.raw_ops.FusedBatchNormV3(
                x=four, scale=gamma, offset=beta, mean=(), variance=(), epsilon=1e-5
            )[:3]
            for old, new in zip(means, now, strict=True):
                old.assign_sub((old - new) * 0.1)
            return y if x.shape.rank == 4 else y[:, 0, 0]

        return apply

    def conv(size: int, count_in: int, count_out: int, stride: int):
        kernel = weight((size, size, count_in, count_out), "normal")
        around = [[0, 0], *[[size // 2] * 2] * 2, [0, 0]]
        return lambda x: tf.nn.conv2d(x, kernel, stride, around if stride > 1 else "SAME")

    first = channels(width)[0]
    stem = conv(3, 3, first, 1), norm(first)
    chain = []
    for count_in, count_out, stride in blocks(width):
        body = [conv(3, count_in, count_out, stride), norm(count_out)]
        body += [conv(3, count_out, count_out, 1), norm(count_out)]
        cut = None
        if stride != 1 or count_in != count_out:
            cut = conv(1, count_in, count_out, stride), norm(count_out)
        chain.append((body, cut))
    last = channels(width)[-1]
    dense = weight((last, last), "normal"), weight((last, PROJECTION), "normal")
    heads = norm(last), norm(PROJECTION)

    def network(x):
        x = tf.nn.relu(stem[1](stem[0](x)))
        for (conv_a, norm_a, conv_b, norm_b), cut in chain:
            rest = x if cut is None else cut[1](cut[0](x))
            x = tf.nn.relu(norm_b(conv_b(tf.nn.relu(norm_a(conv_a(x))))) + rest)
        h = tf.nn.relu(heads[0](tf.reduce_mean(x, (1, 2)) @ dense[0]))
        return heads[1](h @ dense[1])

    views = tf.random.uniform((2 * batch, SIDE, SIDE, 3))
    partner = tf.roll(tf.range(2 * batch), batch, 0)

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(network(images), -1)
            logits = tf.matmul(z, z, transpose_b=True) / TEMPERATURE
            logits = tf.linalg.set_diag(logits, tf.fill([2 * batch], -1e9))
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(partner, logits)
            loss = tf.reduce_mean(loss)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)
        return loss

    return lambda: float(step(views))


def pytorch(width: float, batch: int):
    import torch
    from torch import nn
    from torch.nn import functional

    def conv(size: int, count_in: int, count_out: int, stride: int):
        return nn.Conv2d(count_in, count_out, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, count_in: int, count_out: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                conv(3, count_in, count_out, stride),
                nn.BatchNorm2d(count_out),
                nn.ReLU(inplace=True),
                conv(3, count_out, count_out, 1),
                nn.BatchNorm2d(count_out),
            )
            self.cut = nn.Identity()
            if stride != 1 or count_in != count_out:
                self.cut = nn.Sequential(
                    conv(1, count_in, count_out, stride), nn.BatchNorm2d(count_out)
                )

        def forward(self, x):
            return functional.relu(self.body(x) + self.cut(x), inplace=True)

    first, last = channels(width)[0], channels(width)[-1]
    network = nn.Sequential(
        conv(3, 3, first, 1),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        *(Block(*row) for row in blocks(width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, last, bias=False),
        nn.BatchNorm1d(last),
        nn.ReLU(inplace=True),
        nn.Linear(last, PROJECTION, bias=False),
        nn.BatchNorm1d(PROJECTION),
    ).to(memory_format=torch.channels_last)
    views = torch.rand(2 * batch, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    partner = torch.arange(2 * batch).roll(batch)
    optimizer = torch.optim.SGD(network.parameters(), RATE)

    def step() -> float:
        optimizer.zero_grad()
        z = functional.normalize(network(views))
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-1e9)
        loss = functional.cross_entropy(logits, partner)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SIDES = {"ours": ours, "tensorflow": tensorflow, "pytorch": pytorch}
