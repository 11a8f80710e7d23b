"""From the name of a published encoder to a filled network: fetch, convert once, load at once ever after."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ssl import checkpoints
from keras_ssl.conversion import build_head
from keras_ssl.zoo import cache
from keras_ssl.zoo import published as others
from keras_ssl.zoo.cache import PUBLISHED, Say, ZooError
from keras_ssl.zoo.converting import build_network, convert_source, form_of
from keras_ssl.zoo.origin import (
    Source,
    fetch_published,
    given_files,
    pin_files,
    require_consent,
)
from keras_ssl.zoo.published import FULL, Published
from keras_ssl.zoo.weights import checked, numbered

WEIGHTS, HEAD, CERTIFICATE = "weights.safetensors", "head.safetensors", "certificate.json"


def load_published(
    entry: Published,
    weights: str | Path | None = PUBLISHED,
    *,
    include: str = "features",
    accept_licence: bool = False,
    any_file: bool = False,
    say: Say = cache.say_to_stderr,
) -> keras.Model:
    """Returns a published encoder; see `zoo.load` for the arguments.

    Raises:
        ZooError: if its file cannot be had, is not what it should be, or has no head where one is wanted.
        ValueError: if the network has no tokens or map where they are wanted.
    """
    if include == "head" and not entry.head:
        full = f"{entry.name}{FULL}"
        other = f", that of {full!r} has" if full in others.published() else ""
        raise ZooError(
            f"Expected include='features' for {entry.name}, whose file has no head{other}. "
            "Received: include='head'."
        )
    if weights is None:
        encoder = build_network(entry)
        return with_head(encoder, entry) if include == "head" else checked(encoder, include)
    slot = install(entry, weights, accept_licence=accept_licence, any_file=any_file, say=say)
    encoder = fill(build_network(entry), slot / WEIGHTS)
    return with_head(encoder, entry, slot) if include == "head" else checked(encoder, include)


def with_head(encoder: keras.Model, entry: Published, slot: Path | None = None) -> keras.Model:
    """Returns an encoder with the head in a slot on it; without a slot, with a freshly initialized one.

    Raises:
        ZooError: if the converted file had no head.
    """
    from keras_ssl.backbones import EncoderWithHead, ProjectionHead

    if slot is None:
        return EncoderWithHead(encoder, build_head(entry.head, encoder.feature_dim))
    made = cache.read_json(slot / CERTIFICATE)["head"]
    if "settings" not in made:
        raise ZooError(
            f"Expected a head in the file of {entry.name}; load it without include='head'. "
            f"Received: {made['missing']}"
        )
    return EncoderWithHead(encoder, fill(ProjectionHead(**made["settings"]), slot / HEAD))


def install(
    entry: Published,
    weights: str | Path = PUBLISHED,
    *,
    accept_licence: bool = False,
    any_file: bool = False,
    as_published: bool = False,
    say: Say = cache.say_to_stderr,
) -> Path:
    """Makes sure that an entry's converted weights are in the cache, and returns their folder.

    Args:
        entry: Published.
        weights: str or Path. `"published"`, or a file, `file://` or `http(s)://` address to take instead.
        accept_licence: bool. Consent to the licence of the weights, where it is asked for.
        any_file: bool. Whether a given file may have another size and hash than the published one.
        as_published: bool. Whether a given file is kept under the entry's name, for loading without it later; it must
            be the published one.
        say: callable. Gets sentences on what happens.

    Raises:
        ZooError: if the file cannot be had, or is not what it should be.
    """
    if as_published and any_file:
        raise ZooError(
            "Expected the published file for loading by name; give another one at each load, with weights=FILE and "
            "any_file=True. Received: any_file."
        )
    given = None if str(weights) == PUBLISHED else str(weights)
    slot = cache.slot_folder(entry.name, PUBLISHED)
    if given is None and _usable(slot, entry, say):
        return slot
    with cache.locked(entry.name, say):
        if given is None and _usable(slot, entry, say):
            return slot  # another process made it
        if given is None and entry.access != "open":
            raise ZooError(
                f"Expected a file for {entry.name}, which cannot be fetched by name: weights=FILE, or once "
                f"`keras-ssl zoo fetch {entry.name} --weights FILE`. Received: none. {entry.how}"
            )
        require_consent(entry, accept_licence)
        say(f"licence of the weights of {entry.name}: {entry.terms.text()}")
        if given is None:
            source = fetch_published(entry, say)
        else:
            source = given_files(entry, given, any_file, say)
            slot = slot if as_published else cache.slot_folder(entry.name, source.sha256[:16])
            if not as_published and _usable(slot, entry, say):
                return slot
        make_slot(slot, entry, source, say)
        if given is None or as_published:
            pin_files(entry, source)
    return slot


def fill(network: keras.Model, path: Path) -> keras.Model:
    """Assigns converted weights to a network of the same form, and returns the network.

    Raises:
        ZooError: if they are of another form.
    """
    stored = checkpoints.flatten(checkpoints.read(path).tree)
    variables = numbered(network)
    wrong = [
        key
        for key, variable in variables.items()
        if key not in stored or stored[key].shape != tuple(variable.shape)
    ]
    if wrong or len(stored) != len(variables):
        raise ZooError(
            f"Expected converted weights of this network. Received: {path}, which differs in "
            f"{wrong[0] if wrong else 'the number of variables'}; remove it to convert once more."
        )
    for key, variable in variables.items():
        variable.assign(stored[key])
    return network


def make_slot(slot: Path, entry: Published, source: Source, say: Say) -> dict[str, Any]:
    """Converts a file into a slot of the cache, whole or not at all, and returns the certificate."""
    say(f"converting {source.paths[0].name} with the layout {entry.layout}")
    network, head, certificate = convert_source(entry, source)
    for left in slot.parent.glob(".*"):  # of processes that were killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    draft = slot.parent / f".{slot.name}-{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        for file, model in ((WEIGHTS, network), (HEAD, head)):
            if model is not None:
                certificate["files"][file] = _write(draft / file, model, entry)
        cache.write_json(draft / CERTIFICATE, certificate)
        shutil.rmtree(slot, ignore_errors=True)
        os.rename(draft, slot)
    except OSError as error:
        raise ZooError(
            f"Expected to write the converted weights; make room, or set KERAS_SSL_HOME to another disk. "
            f"Received: {slot} ({error.strerror})."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return certificate


def _write(path: Path, network: keras.Model, entry: Published) -> str:
    """Writes the variables of a network and returns the SHA-256 of the file."""
    arrays = {key: np.asarray(value.numpy()) for key, value in numbered(network).items()}
    checkpoints.write_safetensors(path, arrays, {"entry": entry.name})
    return cache.hash_file(path)["sha256"]


def _usable(slot: Path, entry: Published, say: Say) -> bool:
    """Returns whether a slot holds what its certificate says and what this version would make."""
    certificate = cache.read_json(slot / CERTIFICATE)
    if not slot.exists():
        return False
    try:
        whole = certificate is not None and all(
            cache.hash_file(slot / file)["sha256"] == known
            for file, known in certificate["files"].items()
        )
    except (OSError, KeyError, TypeError):
        whole = False
    if not whole:
        say(f"the converted weights in {slot} are damaged; making them again.")
        return False
    if certificate.get("made_from") != form_of(entry):
        say(f"the converted weights in {slot} are of another version; making them again.")
        return False
    return True
