"""Flags out of the settings classes and of the signatures of methods, views, optimizers and backbones."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from keras_ssl import env
from keras_ssl.methods import METHODS
from keras_ssl.pretraining.docstrings import field_help, parse_attributes
from keras_ssl.pretraining.recipe import (
    NOTHING,
    Recipe,
    RunOptions,
    choose_recipe,
    start_from,
    suggest,
)
from keras_ssl.pretraining.recipes import RECIPES

_GROUPS = ("method_settings", "views_settings", "optimizer_settings", "backbone_settings")
_MANY = (tuple, list, Sequence)


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


def add_pretrain_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Adds the flags of `pretrain`; a method or recipe in `arguments` brings its own along."""
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


def add_embed_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Adds the flags of `embed`."""
    parser.add_argument("data", help="folder of pictures, or what else --data of pretrain takes")
    parser.add_argument(
        "--encoder", required=True, help="run folder, .keras file, SavedModel or zoo entry"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="features.npz or .parquet")
    parser.add_argument("--data-dir", help="where TFDS keeps its prepared data sets")
    parser.add_argument("--image-size", type=int, help="side of the images, pixels [the encoder's]")
    parser.add_argument(
        "--crop-ratio", type=float, help="share of the shorter side that the crop keeps"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time [64]")
    parser.add_argument("--normalize", action="store_true", help="make features unit length")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="stored as [float32]"
    )
    parser.add_argument(
        "--save-every", type=int, default=1024, help="images that a kill can cost [1024]"
    )
    parser.add_argument("--threads", type=int, help="pictures at a time [one for each processor]")


def add_search_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Adds the flags of `search`."""
    parser.add_argument("features", help="file that embed wrote")
    parser.add_argument("--query", required=True, nargs="+", metavar="IMAGE", help="what to find")
    parser.add_argument("--encoder", help="[the one that the features were made with]")
    parser.add_argument("--data", help="where the embedded images are [where they were]")
    parser.add_argument("--k", type=int, default=10, help="neighbors of each query [10]")
    parser.add_argument("--out", metavar="FILE", help="contact sheet, PNG")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    parser.add_argument(
        "--index",
        action="store_true",
        help="search a faiss index beside the features, built at the first call [exact search]",
    )
    parser.add_argument(
        "--include-query", action="store_true", help="a query may be its own neighbor"
    )


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
    convert, many = converter(hint)
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


def converter(hint: Any) -> tuple[Callable[[str], Any], Any]:
    """Returns the type of one value, and how many there are (None for one, Ellipsis for any)."""
    options = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) in _MANY:
        fixed = typing.get_origin(hint) is tuple and Ellipsis not in options
        return options[0], len(options) if fixed else Ellipsis
    if options and not isinstance(hint, type):
        for part in options:
            if typing.get_origin(part) in _MANY:
                return converter(part)
        return next((part for part in (float, int, str, bool) if part in options), str), None
    return hint if hint in (int, float, str, bool) else str, None
