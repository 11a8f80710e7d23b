"""Version folders and the server's files beside them; nothing here runs a network."""

import importlib.util
import json
import os
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_ssl import cli
from keras_ssl.export import formats, serving


@pytest.fixture
def quick(monkeypatch):
    """Puts a folder with one file in the place of a real export."""

    def write(encoder, directory, **settings):
        directory.mkdir(parents=True)
        (directory / "saved_model.pb").write_text(json.dumps([encoder, settings]))
        return directory

    monkeypatch.setattr(serving, "export_encoder", write)


def read(folder):
    return json.loads((folder / "saved_model.pb").read_text())[0]


def test_auto_is_the_highest_version_plus_one(quick, tmp_path):
    model = tmp_path / "swav"
    assert serving.export_version("a", model) == model / "1"
    assert serving.export_version("b", model, 10) == model / "10"
    (model / "notes").mkdir()
    assert serving.export_version("c", model) == model / "11"
    assert [read(model / name) for name in ("1", "10", "11")] == ["a", "b", "c"]
    assert serving.versions(model) == [1, 10, 11]
    assert sorted(os.listdir(model)) == ["1", "10", "11", "notes"]


def test_a_version_that_exists_is_never_replaced(quick, tmp_path):
    serving.export_version("a", tmp_path / "swav", 3)
    with pytest.raises(ValueError, match=r"Received: 3, which exists and may be served"):
        serving.export_version("b", tmp_path / "swav", "3")
    assert read(tmp_path / "swav" / "3") == "a"


def test_exports_at_the_same_time_get_versions_of_their_own(quick, tmp_path, monkeypatch):
    """Between reading and writing `models.config` there is time for others, who must wait."""
    replace = serving._replace

    def slowly(path, text):
        time.sleep(0.01)
        replace(path, text)

    monkeypatch.setattr(serving, "_replace", slowly)
    names = [f"m{number % 4}" for number in range(24)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda n: serving.export_version(n, tmp_path / n), names))
    assert len(set(found)) == 24
    for name in set(names):
        assert serving.versions(tmp_path / name) == [1, 2, 3, 4, 5, 6]
    text = (tmp_path / "models.config").read_text()
    assert sorted(re.findall(r'name: "(\w+)"', text)) == ["m0", "m1", "m2", "m3"]


def test_a_version_that_another_export_took_meanwhile_is_passed_over(quick, tmp_path, monkeypatch):
    serving.export_version("a", tmp_path / "swav")
    seen = iter([[], [1]])  # the first look was before the other export ended
    monkeypatch.setattr(serving, "versions", lambda model: next(seen))
    assert serving.export_version("b", tmp_path / "swav").name == "2"
    assert [read(tmp_path / "swav" / name) for name in "12"] == ["a", "b"]


def test_a_failed_export_leaves_nothing_that_a_server_sees(monkeypatch, tmp_path):
    def fail(encoder, directory, **settings):
        directory.mkdir()
        (directory / "half").write_text("x")
        raise OSError("disk full")

    monkeypatch.setattr(serving, "export_encoder", fail)
    with pytest.raises(OSError, match="disk full"):
        serving.export_version("a", tmp_path / "swav")
    assert os.listdir(tmp_path / "swav") == []
    assert not (tmp_path / "models.config").exists()


def test_models_config_by_hand(quick, tmp_path):
    serving.export_version("a", tmp_path / "swav")
    serving.export_version("a", tmp_path / "swav-50.w2")
    assert (tmp_path / "models.config").read_text() == (
        "model_config_list {\n"
        '  config {\n    name: "swav"\n    base_path: "/models/swav"\n'
        '    model_platform: "tensorflow"\n  }\n'
        '  config {\n    name: "swav-50.w2"\n    base_path: "/models/swav-50.w2"\n'
        '    model_platform: "tensorflow"\n  }\n'
        "}\n"
    )


def test_files_that_were_edited_stay(quick, tmp_path):
    """An entry with labels is kept, a name in a comment does not count, the last brace may stand anywhere."""
    edited = (
        "# old } name: 'dino' {\nmodel_config_list: { config { name: 'swav' base_path: '/models/swav'\n"
        "  version_labels { key: 'stable' value: 1 } } } # end }"
    )
    (tmp_path / "models.config").write_text(edited)
    (tmp_path / "batching.conf").write_text("max_batch_size { value: 4 }\n")
    serving.export_version("a", tmp_path / "swav")
    assert (tmp_path / "models.config").read_text() == edited
    assert (tmp_path / "batching.conf").read_text() == "max_batch_size { value: 4 }\n"
    serving.export_version("a", tmp_path / "dino")
    text = (tmp_path / "models.config").read_text()
    assert text.startswith(edited[: edited.index("} # end")]) and text.endswith("} # end }")

    proto = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2", reason="needs tensorflow-serving-api"
    )
    from google.protobuf import text_format

    parsed = text_format.Parse(text, proto.ModelServerConfig()).model_config_list.config
    assert [(entry.name, entry.base_path) for entry in parsed] == [
        ("swav", "/models/swav"),
        ("dino", "/models/dino"),
    ]
    assert dict(parsed[0].version_labels) == {"stable": 1}


def test_a_strange_models_config_is_refused_before_anything_is_written(quick, tmp_path):
    (tmp_path / "models.config").write_text("custom_model_config {}\n")
    with pytest.raises(ValueError, match=r"Expected `model_config_list \{ ... \}` in .*config"):
        serving.export_version("a", tmp_path / "swav")
    assert os.listdir(tmp_path) == ["models.config"]


@pytest.mark.parametrize(
    "name, version, sentence",
    [
        ("swav", "0", "auto or a positive number. Received: '0'"),
        ("swav", "-1", "auto or a positive number"),
        ("swav", "next", "auto or a positive number"),
        ("3", "auto", "not a number"),
        ("my model", "auto", "letters, digits"),
        ("plain", "auto", "a SavedModel itself"),
    ],
)
def test_wrong_names_and_versions_are_named(name, version, sentence, quick, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "saved_model.pb").write_text("x")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        serving.export_version("a", tmp_path / name, version)
    assert os.listdir(tmp_path) == ["plain"]


def test_commands_survive_spaces():
    words = shlex.split(serving.docker_command(Path("/my models/x y")))
    assert words[:2] == ["docker", "run"]
    assert words[words.index("-v") + 1] == "/my models/x y:/models:ro"
    assert "--model_config_file=/models/models.config" in words[words.index("tensorflow/serving") :]


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_files_for_other_hosts_start_the_server_alike(name):
    text = (Path(__file__).parents[2] / "export" / "serving" / name).read_text()
    words = shlex.split(serving.docker_command(Path("/x")))
    flags = words[words.index("tensorflow/serving") + 1 :]
    assert re.findall(r"- (--\S+)", text) == flags
    assert "image: tensorflow/serving\n" in text and "/models" in text


def test_the_tables_of_the_page_and_the_command_are_those_of_the_numbers():
    root = Path(__file__).resolve().parents[2]
    spec = importlib.util.spec_from_file_location("latency", root / "benchmarks" / "serving.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    stored = json.loads((root / "docs" / "benchmarks" / "serving.json").read_text())
    page = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    assert benchmark.tables(stored) in page
    where = stored["environment"]
    program, script, *flags = shlex.split(benchmark.command(where))
    assert (program, script) == (
        "python",
        "benchmarks/serving.py",
    ) and f"`{benchmark.command(where)}`" in page
    options = vars(benchmark.parse(flags))
    for key in ("backbone", "image_size", "batches", "threads", "rounds"):
        assert options[key] == where[key]
    measured = [(row["threads"], row["batch"]) for row in stored["rows"]]
    assert measured == [(t, b) for t in options["threads"] for b in options["batches"]]
    assert [row["threads"] for row in stored["decoding"]] == options["threads"]


# Formats -----------------------------------------------------------------------------------------------------


def test_options_of_other_formats_are_refused(monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "odd", formats.Format("odd", "os:getcwd", ()))
    with pytest.raises(ValueError, match="Expected a format of saved_model, preset.*'gguf'"):
        formats.write_as("gguf", None, "x", image_size=8)
    with pytest.raises(ValueError, match="--version with --format saved_model only.*preset"):
        formats.write_as("preset", None, "x", image_size=8, version="auto")
    with pytest.raises(
        ValueError, match="--crop-ratio with --format saved_model or preset.*format odd"
    ):
        formats.write_as("odd", None, "x", image_size=8, crop_ratio=0.5, version=None)


def test_the_command_hands_its_flags_on(monkeypatch, capsys):
    from keras_ssl.pretraining import commands

    seen = {}

    def write(encoder, to, **settings):
        seen.update(settings, to=str(to))
        return ["first", "second"]

    class Network:
        image_size = 48

    monkeypatch.setattr(serving, "write", write)
    monkeypatch.setattr(commands, "load_any_encoder", lambda name: Network())
    assert cli.main(["export", "runs/x", "--to", "out", "--version", "auto"]) == 0
    assert seen == {
        "to": "out",
        "image_size": 48,
        "version": "auto",
        "facts": {"source": "x"},
    }
    assert capsys.readouterr().out == "first\nsecond\n"
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "runs/x", "--to", "out", "--format", "preset", "--version", "1"])
    assert stop.value.code == 2
    assert "Expected --version with --format saved_model only." in capsys.readouterr().err


def test_a_signature_that_trains_is_not_put_on_a_server(quick, tmp_path):
    with pytest.raises(ValueError, match="--train-signature without --version"):
        serving.write(
            "a", tmp_path / "swav", image_size=8, facts={}, version="auto", train_signature=True
        )
    assert os.listdir(tmp_path) == []
