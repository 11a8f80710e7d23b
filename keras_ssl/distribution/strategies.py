"""`tf.distribute` strategies by name."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import env
from keras_ssl.distribution.cluster import StrategyError, read_cluster

STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "multiworker", "tpu")


def create_strategy(name: str = "auto", *, replicas: int | None = None) -> tf.distribute.Strategy:
    """Returns the strategy of this name. Call it before any other TensorFlow operation.

    Args:
        name: str. `"auto"` takes all GPUs when there are some (mirrored when several), else one CPU device;
            `"cpu"` and `"gpu"` take one device; `"mirrored"` all GPUs, or `replicas` logical devices of the CPU
            when there is no GPU;
            `"multiworker"` one worker of the cluster in `TF_CONFIG`; `"tpu"` the TPU that `TPU_NAME` names, or that
            of this TPU VM.
            Defaults to `"auto"`.
        replicas: int. Number of devices for `"mirrored"`. Defaults to all GPUs, or 2 on a CPU.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        StrategyError: If the name is unknown, or the machine lacks what it needs.
    """
    planned_replicas(name, replicas)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if name == "auto":
        name = "cpu" if not gpus else "gpu" if len(gpus) == 1 else "mirrored"
    return {
        "cpu": lambda: tf.distribute.OneDeviceStrategy("/cpu:0"),
        "gpu": lambda: _one_gpu(len(gpus)),
        "mirrored": lambda: _mirrored(len(gpus), replicas),
        "multiworker": _multiworker,
        "tpu": _tpu,
    }[name]()


def planned_replicas(name: str = "auto", replicas: int | None = None) -> int | None:
    """Returns how many replicas the strategy of this name will have; touches no device.

    Args:
        name: str. One of `STRATEGIES`.
        replicas: int. As for `create_strategy`.

    Returns:
        int, or None for a TPU, which only tells when it is reached. On several workers each is taken to have as many
        GPUs as this one.

    Raises:
        StrategyError: If the name is unknown, `replicas` is given to another strategy than `"mirrored"`, or
            `TF_CONFIG` and the strategy do not fit.
    """
    if name not in STRATEGIES:
        raise StrategyError(
            f"Expected strategy to be one of {', '.join(STRATEGIES)}. Received: {name!r}."
        )
    if replicas is not None and name != "mirrored":
        raise StrategyError(
            f"Expected --replicas only with --strategy mirrored. Received: replicas={replicas} with strategy {name!r}."
        )
    if name == "tpu":
        return None
    cluster, gpus = read_cluster(), len(tf.config.list_physical_devices("GPU"))
    if name == "multiworker":
        if cluster is None:
            raise StrategyError(
                "Expected TF_CONFIG in the environment for --strategy multiworker, as training/launch/worker.sh "
                "sets it. Received: nothing; use --strategy mirrored on one machine."
            )
        return len(cluster) * max(1, gpus)
    if cluster is not None and len(cluster) > 1:
        raise StrategyError(
            f"Expected --strategy multiworker where TF_CONFIG names {len(cluster)} workers. Received: {name!r}, with "
            "which each would train alone in the same folder."
        )
    if name == "mirrored":
        return replicas or gpus or 2
    return max(1, gpus) if name == "auto" else 1


def _multiworker() -> tf.distribute.Strategy:
    """Returns once all workers are there."""
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise StrategyError(
            f"Expected --strategy multiworker before TensorFlow has done anything. Received: {error}"
        ) from error
    except tf.errors.UnknownError as error:
        cluster = read_cluster()
        raise StrategyError(
            f"Expected the port of {cluster.workers[cluster.index]} in TF_CONFIG to be free on this machine. "
            f"Received: {error.message}; wait until an older worker has ended, or choose another port."
        ) from error


def _one_gpu(count: int) -> tf.distribute.Strategy:
    if not count:
        raise StrategyError(
            "Expected a GPU that TensorFlow can see for --strategy gpu. Received: none; "
            "install the `cuda` extra or use --strategy cpu."
        )
    return tf.distribute.OneDeviceStrategy("/gpu:0")


def _mirrored(gpus: int, replicas: int | None) -> tf.distribute.Strategy:
    if replicas is not None and replicas < 1:
        raise StrategyError(f"Expected --replicas to be at least 1. Received: {replicas}.")
    if gpus:
        if replicas is not None and replicas > gpus:
            raise StrategyError(
                f"Expected at most {gpus} replicas, one for each GPU. Received: {replicas}."
            )
        return tf.distribute.MirroredStrategy([f"/gpu:{i}" for i in range(replicas or gpus)])
    count = replicas or 2
    split_cpu(count)
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices; possible only before TensorFlow has touched a device.

    Raises:
        StrategyError: If the devices exist already and are fewer.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise StrategyError(
                f"Expected to split the CPU into {count} devices before TensorFlow starts. Received: {error}"
            ) from error


def _tpu() -> tf.distribute.Strategy:
    name = env.tpu_name()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # the resolver raises many types when there is no TPU
        raise StrategyError(
            f"Expected a TPU for --strategy tpu. Received: no TPU named {name!r} ({type(error).__name__}); run on a "
            "TPU VM with the packages of requirements/tpu.txt, or use --strategy auto."
        ) from error
    return tf.distribute.TPUStrategy(resolver)
