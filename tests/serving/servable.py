"""One version of a model as TensorFlow Serving runs it: a session, tensors by name, warm-up, batches of requests."""

import queue
import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,  # noqa: F401, the descriptors below name it
)
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2


class RequestError(Exception):
    """An error for the caller: the name of a gRPC status code, and a sentence."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Servable:
    """A loaded SavedModel.

    Args:
        name: str.
        directory: Path, `<name>/<version>`.
        batching: BatchingParameters, or None to run each request alone.
    """

    def __init__(self, name, directory, batching):
        self.name, self.version, self.batching = name, int(directory.name), batching
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=2, inter_op_parallelism_threads=2
        )
        self.session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self.session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(directory))
        self.signatures = {
            key: value
            for key, value in meta.signature_def.items()
            if value.method_name == "tensorflow/serving/predict"
        }
        self.batchers, self.lock = {}, threading.Lock()
        self.runs = []  # (signature, rows in the batch that was run, rows that were asked for)
        self.warmed = self._warm_up(directory / "assets.extra" / "tf_serving_warmup_requests")

    def predict(self, signature_name, inputs):
        """Returns output name -> array for input name -> array."""
        signature_name = signature_name or "serving_default"
        signature = self.signatures.get(signature_name)
        if signature is None:
            message = f'Serving signature name: "{signature_name}" not found in signature def'
            raise RequestError("INVALID_ARGUMENT", message)
        if set(inputs) != set(signature.inputs):
            extra, missing = (
                set(inputs) - set(signature.inputs),
                set(signature.inputs) - set(inputs),
            )
            message = (
                f"input size does not match signature: Sent extra: {sorted(extra)}. "
                f"Missing but required: {sorted(missing)}."
            )
            raise RequestError("INVALID_ARGUMENT", message)
        if self.batching is None:
            return self.run(signature_name, inputs)
        with self.lock:
            if signature_name not in self.batchers:
                self.batchers[signature_name] = Batcher(self, signature_name, self.batching)
        return self.batchers[signature_name].submit(inputs)

    def run(self, signature_name, inputs):
        signature = self.signatures[signature_name]
        outputs = sorted(signature.outputs)
        fed = {signature.inputs[key].name: value for key, value in inputs.items()}
        try:
            values = self.session.run([signature.outputs[key].name for key in outputs], fed)
        except tf.errors.OpError as error:
            wrong_input = isinstance(error, tf.errors.InvalidArgumentError)
            message = error.message.removeprefix("Graph execution error:").strip()  # Python's
            raise RequestError(
                "INVALID_ARGUMENT" if wrong_input else "INTERNAL", message
            ) from error
        except ValueError as error:  # shapes that the placeholder does not take
            raise RequestError("INVALID_ARGUMENT", str(error)) from error
        return dict(zip(outputs, values, strict=True))

    def _warm_up(self, path):
        count = 0
        for record in (
            tf.data.TFRecordDataset(str(path)).as_numpy_iterator() if path.exists() else ()
        ):
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            self.run(request.model_spec.signature_name, inputs)
            count += 1
        return count


class Batcher:
    """Joins the requests of a signature, fills the batch up to an allowed size, and splits the result."""

    def __init__(self, servable, signature_name, parameters):
        self.servable, self.signature_name = servable, signature_name
        self.limit = parameters.max_batch_size.value
        self.allowed = list(parameters.allowed_batch_sizes)
        self.timeout = parameters.batch_timeout_micros.value / 1e6
        self.waiting, self.left, self.gate = queue.Queue(), None, threading.Lock()
        for _ in range(parameters.num_batch_threads.value):
            threading.Thread(target=self.work, daemon=True).start()

    def submit(self, inputs):
        rows = {len(value) if np.ndim(value) else 0 for value in inputs.values()}
        if len(rows) != 1 or not 0 < max(rows) <= self.limit:
            message = f"Batching session Run() input tensors must have 1 to {self.limit} rows"
            raise RequestError("INVALID_ARGUMENT", message)
        task = {"inputs": inputs, "rows": rows.pop(), "done": threading.Event()}
        self.waiting.put(task)
        task["done"].wait(timeout=60)
        if "result" not in task:
            raise task.get("error") or RequestError("DEADLINE_EXCEEDED", "no batch in time")
        return task["result"]

    def gather(self):
        with self.gate:
            tasks = [self.left or self.waiting.get()]
            self.left = None
            end = time.monotonic() + self.timeout
            while True:
                try:
                    task = self.waiting.get(timeout=max(0.0, end - time.monotonic()))
                except queue.Empty:
                    return tasks
                if sum(t["rows"] for t in tasks) + task["rows"] > self.limit:
                    self.left = task
                    return tasks
                tasks.append(task)

    def work(self):
        while True:
            tasks = self.gather()
            rows = sum(task["rows"] for task in tasks)
            size = min(allowed for allowed in self.allowed if allowed >= rows)
            try:
                inputs = {key: self.joined(tasks, key, size - rows) for key in tasks[0]["inputs"]}
                outputs = self.servable.run(self.signature_name, inputs)
                self.servable.runs.append((self.signature_name, size, rows))
                start = 0
                for task in tasks:
                    part = slice(start, start + task["rows"])
                    task["result"] = {key: value[part] for key, value in outputs.items()}
                    start += task["rows"]
            except RequestError as error:
                for task in tasks:
                    task["error"] = error
            for task in tasks:
                task["done"].set()

    @staticmethod
    def joined(tasks, key, padding):
        parts = [task["inputs"][key] for task in tasks]
        if len({part.shape[1:] for part in parts}) > 1:
            text = f"Tensors with name '{key}' from different tasks have different shapes and padding is turned off."
            raise RequestError("FAILED_PRECONDITION", text)
        return np.concatenate([*parts, *[parts[-1][:1]] * padding])


def message(name, **fields):
    """Returns a message class: field name -> (number, type or type name, whether repeated)."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    file.dependency.extend(
        f"{t[1:]}.proto" for _, t, _ in fields.values() if str(t).count(".") == 1
    )
    declared = file.message_type.add(name=name)
    for field, (number, kind, repeated) in fields.items():
        entry = declared.field.add(name=field, number=number, label=3 if repeated else 1)
        if isinstance(kind, str):
            entry.type, entry.type_name = entry.TYPE_MESSAGE, kind
        else:
            entry.type = kind
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


# tensorflow_serving/servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto, which
# tensorflow-serving-api does not bring: the fields that are used.
_INT64 = ".google.protobuf.Int64Value"
BatchingParameters = message(
    "BatchingParameters",
    max_batch_size=(1, _INT64, False),
    batch_timeout_micros=(2, _INT64, False),
    max_enqueued_batches=(3, _INT64, False),
    num_batch_threads=(4, _INT64, False),
    allowed_batch_sizes=(6, 3, True),
)
PrometheusConfig = message("PrometheusConfig", enable=(1, 8, False), path=(2, 9, False))
MonitoringConfig = message("MonitoringConfig", prometheus_config=(1, ".PrometheusConfig", False))


def load_models(root, batched=True):
    """Returns name -> Servable of the highest version, as the files of a root say; not batched as without the flag."""
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((root / "models.config").read_text(), config)
    parameters = text_format.Parse((root / "batching.conf").read_text(), BatchingParameters())
    assert list(parameters.allowed_batch_sizes)[-1] == parameters.max_batch_size.value
    monitoring = text_format.Parse((root / "monitoring.conf").read_text(), MonitoringConfig())
    assert monitoring.prometheus_config.enable
    models = {}
    for entry in config.model_config_list.config:
        base = root / Path(entry.base_path).relative_to("/models")
        numbers = [int(path.name) for path in base.iterdir() if path.name.isdecimal()]
        newest = base / str(max(numbers))
        models[entry.name] = Servable(entry.name, newest, parameters if batched else None)
    return models
