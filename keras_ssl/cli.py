"""The commands of keras-ssl. The only place that reads flags."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from keras_ssl import env
from keras_ssl.methods import METHODS
from keras_ssl.pretraining.recipe import (
    NOTHING,
    Recipe,
    RunOptions,
    SettingError,
    choose_recipe,
    field_help,
    parse_attributes,
    start_from,
    suggest,
)
from keras_ssl.pretraining.recipes import RECIPES

_GROUPS = ("method_settings", "views_settings", "optimizer_settings", "backbone_settings")
_MANY = (tuple, list, Sequence)
_USAGE = {"pretrain": "keras-ssl pretrain --method NAME --data IMAGES [--recipe NAME] [settings]"}
_TEXTS = {
    "pretrain": """\
Pre-train an encoder on images without labels. The same command on the same --workdir resumes.

Add --method NAME to --help to see the method's own settings, and those of its views, optimizer and backbone.
""",
    "input-service": """\
Make batches on other hosts: one dispatcher, any number of workers, and the trainer with --input-service HOST:PORT.
Order and exactly-once are not promised: batches come as they are ready, and those of a worker that dies are lost.
""",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and exit code 2."""

    def error(self, message: str) -> typing.NoReturn:
        """Prints the sentence and exits with 2."""
        if message.startswith("unrecognized arguments: "):
            flag = message.split(": ", 1)[1].split()[0]
            message = f"Expected a known flag. Received: {flag}.{suggest(flag, self._option_string_actions)}"
        fail(f"{message.rstrip('.')}. See {self.prog} --help.")


def fail(sentence: str) -> typing.NoReturn:
    """Prints one sentence to standard error and exits with 2."""
    print(f"keras-ssl: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 wrong input, 128 + n stopped by signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(prog="keras-ssl", description="Self-supervised learning on images with Keras.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (text, _, _) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    if not arguments or arguments[0].startswith("-") or arguments[0] not in COMMANDS:
        if arguments and not arguments[0].startswith("-"):
            fail(
                f"Expected a command, one of {', '.join(COMMANDS)}. "
                f"Received: {arguments[0]!r}.{suggest(arguments[0], COMMANDS)}"
            )
        parser.parse_args(arguments or ["--help"])
    text, fill, run = COMMANDS[arguments[0]]
    try:
        command = Parser(
            prog=f"keras-ssl {arguments[0]}",
            description=_TEXTS.get(arguments[0], text),
            usage=_USAGE.get(arguments[0]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        fill(command, arguments[1:])
        return run(command.parse_args(arguments[1:]))
    except KeyboardInterrupt:  # during a run's steps the run itself saves and stops
        print("keras-ssl: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError) as error:
        if env.debug():
            raise
        fail(str(error).splitlines()[0] if str(error) else repr(error))
    except RuntimeError as error:
        if type(error).__name__ != "TrainingError" or env.debug():
            raise
        print(f"keras-ssl: {error}", file=sys.stderr)
        return 1


# pretrain ----------------------------------------------------------------------------------------------------


def _fill_pretrain(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    peek = Parser(add_help=False, allow_abbrev=False)
    for name in ("--method", "--recipe", "--optimizer", "--backbone"):
        peek.add_argument(name)
    known, _ = peek.parse_known_args(arguments)
    chosen: dict[str, Any] = {}
    if known.method or known.recipe:
        chosen = choose_recipe(known.recipe, known.method)
    run = parser.add_argument_group("run")
    run.add_argument("--recipe", metavar="NAME", help=f"start from: {', '.join(RECIPES)}")
    _add_fields(run, RunOptions, {})
    recipe = parser.add_argument_group("recipe", "settings that decide the result")
    _add_fields(recipe, Recipe, chosen)
    if chosen:
        given = {name: value for name, value in vars(known).items() if value}
        chosen = start_from(chosen, given) | given
        _add_own_settings(parser, chosen)


def _add_fields(group: argparse._ArgumentGroup, cls: type, chosen: dict[str, Any]) -> None:
    hints, texts = typing.get_type_hints(cls), field_help(cls)
    for field in dataclasses.fields(cls):
        if field.name in _GROUPS:
            continue
        default = chosen.get(
            field.name, None if field.default is dataclasses.MISSING else field.default
        )
        text = f"one of: {', '.join(METHODS)}" if field.name == "method" else texts[field.name]
        _add_flag(group, field.name, hints[field.name], default, text)


def _add_own_settings(parser: argparse.ArgumentParser, chosen: dict[str, Any]) -> None:
    env.import_tensorflow_quietly()
    from keras_ssl import views
    from keras_ssl.methods import get_method
    from keras_ssl.pretraining import build

    optimizer = chosen.get("optimizer", "sgd")
    backbone = chosen.get("backbone", "resnet50")
    method = get_method(chosen["method"])
    sections = [
        (f"{method.__name__} settings", "", build.method_settings(chosen["method"]), method),
        ("views settings", "views_", build.view_settings(), views.customize),
        (
            f"optimizer {optimizer} settings",
            "optimizer_",
            build.optimizer_settings(optimizer),
            build.OPTIMIZERS[optimizer],
        ),
        (
            f"backbone {backbone} settings",
            "backbone_",
            build.backbone_settings(backbone),
            build.backbone_class(backbone),
        ),
    ]
    for title, prefix, settings, documented in sections:
        group = parser.add_argument_group(title)
        texts = parse_attributes(documented.__doc__ or "")
        for name, parameter in settings.items():
            default = chosen.get(prefix + name, parameter.default)
            _add_flag(group, prefix + name, parameter.annotation, default, texts.get(name, ""))


def _add_flag(
    group: argparse._ArgumentGroup, name: str, hint: Any, default: Any, text: str
) -> None:
    flag = "--" + name.replace("_", "-")
    shown = "" if default in (None, (), "") or callable(default) else f" [{default}]"
    text = text.replace("`", "").replace("%", "%%")
    text = text.split(" Defaults to")[0] + shown.replace("%", "%%")
    convert, many = _converter(hint)
    if convert is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    metavar = getattr(convert, "__name__", "value").upper()
    nargs = {"nargs": "*" if many is Ellipsis else many} if many else {}
    if not many and convert is not str and type(None) in typing.get_args(hint):
        convert = _or_none(convert)
    group.add_argument(flag, type=convert, metavar=metavar, default=None, help=text, **nargs)


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns a converter that also takes the word none, which switches a recipe's optional number off."""

    def converted(text: str) -> Any:
        return NOTHING if text.lower() == "none" else convert(text)

    converted.__name__ = convert.__name__  # named in argparse's errors
    return converted


def _converter(hint: Any) -> tuple[Callable[[str], Any], Any]:
    """Returns the type of one value, and how many there are (None for one, Ellipsis for any)."""
    options = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) in _MANY:
        fixed = typing.get_origin(hint) is tuple and Ellipsis not in options
        return options[0], len(options) if fixed else Ellipsis
    if options and not isinstance(hint, type):
        for part in options:
            if typing.get_origin(part) in _MANY:
                return _converter(part)
        return next((part for part in (float, int, str, bool) if part in options), str), None
    return hint if hint in (int, float, str, bool) else str, None


def _pretrain(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.run import pretrain

    settings = {name: value for name, value in vars(flags).items() if value is not None}
    result = pretrain(**settings)
    return 128 + result.stopped if result.stopped else 0


# evaluate, export, prepare, zoo ------------------------------------------------------------------------------


def _fill_evaluate(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("encoder", help="run folder, .keras file, SavedModel or zoo entry")
    parser.add_argument("--data", help="labelled images to train on [the run's own data]")
    parser.add_argument("--test-data", help="labelled images to score [a held-out fifth of --data]")
    parser.add_argument("--data-dir", help="where TFDS keeps its prepared data sets")
    parser.add_argument("--image-size", type=int, help="side of the images, pixels [the encoder's]")
    parser.add_argument("--limit", type=int, help="use at most so many images of each set")
    parser.add_argument("--batch-size", type=int, default=256, help="images at a time [256]")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of the linear probe [100]")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and probe [0]")
    parser.add_argument("--to", metavar="FILE", help="also write the results as JSON")


def _evaluate(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.commands import evaluate

    return evaluate(**vars(flags))


def _fill_export(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("encoder", help="run folder, .keras file, SavedModel or zoo entry")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder of the SavedModel")
    parser.add_argument("--image-size", type=int, help="side of the images, pixels [the encoder's]")
    parser.add_argument(
        "--crop-ratio", type=float, help="share of the shorter side that the crop keeps"
    )


def _export(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.commands import export

    return export(**vars(flags))


def _fill_prepare(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("data", help="folder of pictures, or what else --data of pretrain takes")
    parser.add_argument("--to", metavar="DIR", help="folder of the copies [.keras_ssl-cache in it]")
    parser.add_argument("--size", type=int, default=512, help="their shorter side, pixels [512]")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality, 1 to 95 [90]")
    parser.add_argument("--threads", type=int, help="pictures at a time [one for each processor]")


def _prepare(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.commands import prepare

    return prepare(**vars(flags))


def _fill_zoo(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    listing = actions.add_parser("list", help="all entries")
    listing.add_argument("--method", help="only this method")
    listing.add_argument("--backbone", help="only this backbone")
    card = actions.add_parser("card", help="recipe and results of one entry")
    card.add_argument("name")


def _zoo(flags: argparse.Namespace) -> int:
    from keras_ssl import zoo

    if flags.action == "card":
        print(zoo.card(flags.name))
        return 0
    entries = zoo.list(method=flags.method, backbone=flags.backbone)
    for entry in entries:
        print(entry.line())
    if not entries:
        print("No published encoder fits.")
    return 0


# input-service -----------------------------------------------------------------------------------------------


def _fill_input_service(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    dispatcher = actions.add_parser("dispatcher", help="hands work out; trusted networks only")
    dispatcher.add_argument("--port", type=int, required=True, help="to listen on; 0 for any free")
    dispatcher.add_argument("--workdir", metavar="DIR", help="journal, to go on after a restart")
    worker = actions.add_parser("worker", help="reads images and makes batches; any number")
    worker.add_argument("--dispatcher", required=True, metavar="HOST:PORT")
    worker.add_argument("--data", required=True, help="the trainer's --data, under any path")
    worker.add_argument("--data-dir", help="where TFDS keeps its prepared data sets")
    worker.add_argument("--quarantine", metavar="FILE", help="list broken images here")
    worker.add_argument("--port", type=int, default=0, help="to listen on [any that is free]")


def _input_service(flags: argparse.Namespace) -> typing.NoReturn:
    env.import_tensorflow_quietly()
    from keras_ssl.data import service

    getattr(service, f"run_{vars(flags).pop('action')}")(sys.stderr.write, **vars(flags))


# replay, doctor ----------------------------------------------------------------------------------------------


def _fill_replay(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "batch", metavar="step|file", help="number of a step, or file of bad_batches/"
    )


def _replay(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.replay import replay

    return replay(**vars(flags))


def _fill_doctor(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")


def _doctor(flags: argparse.Namespace) -> int:
    from keras_ssl.pretraining.checkup import doctor

    return doctor(**vars(flags))


COMMANDS: dict[str, tuple[str, Callable, Callable]] = {
    "pretrain": ("pre-train an encoder on images without labels", _fill_pretrain, _pretrain),
    "evaluate": ("k-NN and linear probe of an encoder", _fill_evaluate, _evaluate),
    "export": ("write an encoder as SavedModel", _fill_export, _export),
    "prepare": ("write small copies of large pictures once", _fill_prepare, _prepare),
    "zoo": ("list the published encoders, show a card", _fill_zoo, _zoo),
    "input-service": ("make batches on other hosts", _fill_input_service, _input_service),
    "doctor": ("check this machine: versions, devices, precisions", _fill_doctor, _doctor),
    "replay": ("show where a batch of a run gives NaN", _fill_replay, _replay),
}

__all__ = ["SettingError", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
