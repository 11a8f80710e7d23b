"""The commands of keras-ssl; with `flags`, the only place that reads flags."""

from __future__ import annotations

import argparse
import sys
import typing
from collections.abc import Callable, Sequence

from keras_ssl import env
from keras_ssl.flags import Parser, add_embed_flags, add_pretrain_flags, add_search_flags, fail
from keras_ssl.pretraining.recipe import SettingError, suggest

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


def _pretrain(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.run import pretrain

    settings = {name: value for name, value in vars(flags).items() if value is not None}
    result = pretrain(**settings)
    return 128 + result.stopped if result.stopped else 0


# evaluate, export, embed, search, prepare, zoo ---------------------------------------------------------------


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
    from keras_ssl.export.formats import FORMATS

    texts = "; ".join(f"{name}: {entry.text}" for name, entry in FORMATS.items())
    parser.add_argument("--to", required=True, metavar="PATH", help="folder or file to write")
    parser.add_argument("--format", choices=FORMATS, default="saved_model", help=texts)
    parser.add_argument("--image-size", type=int, help="side of the images, pixels [the encoder's]")
    parser.add_argument(
        "--crop-ratio", type=float, help="share of the shorter side that the crop keeps"
    )
    parser.add_argument(
        "--quantize",
        choices=("float32", "float16", "int8"),
        help="numbers of a litert file [float32]",
    )
    parser.add_argument(
        "--calibration",
        metavar="IMAGES",
        help="litert: images to measure the ranges of int8 and the agreement on",
    )
    parser.add_argument(
        "--version",
        metavar="auto|N",
        help="write version N, or the next one, of the served model --to, and the server's files beside it",
    )
    parser.add_argument(
        "--train-signature",
        action="store_const",
        const=True,
        help="add a signature that trains, for Keras's TFSMLayer; not to be served",
    )


def _export(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.commands import export

    return export(**vars(flags))


def _embed(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.feature_commands import embed

    return embed(**vars(flags))


def _search(flags: argparse.Namespace) -> int:
    env.import_tensorflow_quietly()
    from keras_ssl.pretraining.feature_commands import search

    return search(**vars(flags))


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
    listing = actions.add_parser("list", help="all entries, ours and other people's")
    for name in ("method", "backbone", "licence", "access", "source"):
        listing.add_argument(f"--{name}", help=f"only this {name}")
    listing.add_argument(
        "--commercial", action="store_true", default=None, help="only what allows commercial use"
    )
    listing.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    card = actions.add_parser("card", help="what is known of one entry: recipe, results, licence")
    card.add_argument("name")
    for action, text in (
        ("fetch", "fetch and convert an entry, so that it loads without network"),
        (
            "verify",
            "hash, count and convert an entry again, and compare it with a reference network",
        ),
    ):
        command = actions.add_parser(action, help=text)
        command.add_argument("name")
        command.add_argument("--weights", metavar="FILE", help="take this file or address instead")
        command.add_argument(
            "--accept-licence", action="store_true", help="consent to the licence of the weights"
        )
        if action == "verify":
            command.add_argument(
                "--any-file", action="store_true", help="FILE may differ from the published one"
            )
            command.add_argument(
                "--reference",
                action=argparse.BooleanOptionalAction,
                default=True,
                help="whether a reference network in PyTorch or NumPy reads the file too",
            )
    pins = actions.add_parser("pins", help="hashes that were pinned on first use")
    pins.add_argument("--forget", metavar="NAME", help="forget those of this entry")
    cache = actions.add_parser("cache", help="what is in the cache, and how large it is")
    cache.add_argument("--clear", metavar="NAME", help="remove this entry from it, or all")
    inspect = actions.add_parser("inspect", help="what is in a checkpoint file; runs nothing in it")
    inspect.add_argument("file", help="of PyTorch, safetensors, TensorFlow, NumPy, BYOL or Caffe")


def _zoo(flags: argparse.Namespace) -> int:
    from keras_ssl.pretraining import zoo_commands

    settings = dict(vars(flags))
    return getattr(zoo_commands, settings.pop("action"))(**settings)


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
    "pretrain": ("pre-train an encoder on images without labels", add_pretrain_flags, _pretrain),
    "evaluate": ("k-NN and linear probe of an encoder", _fill_evaluate, _evaluate),
    "export": ("write an encoder to serve, to fine-tune or to share", _fill_export, _export),
    "embed": ("write the features of a folder of images", add_embed_flags, _embed),
    "search": ("find the nearest images in a file of features", add_search_flags, _search),
    "prepare": ("write small copies of large pictures once", _fill_prepare, _prepare),
    "zoo": ("list, fetch and verify published encoders", _fill_zoo, _zoo),
    "input-service": ("make batches on other hosts", _fill_input_service, _input_service),
    "doctor": ("check this machine: versions, devices, precisions", _fill_doctor, _doctor),
    "replay": ("show where a batch of a run gives NaN", _fill_replay, _replay),
}

__all__ = ["SettingError", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
