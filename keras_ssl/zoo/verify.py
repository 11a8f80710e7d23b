"""Checking a published encoder again: hashes, the count of tensors, weights, features, and a reference network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.conversion import weights_digest
from keras_ssl.zoo import cache, loading, origin
from keras_ssl.zoo.cache import PUBLISHED, Say, ZooError
from keras_ssl.zoo.catalog import Entry
from keras_ssl.zoo.checks import Check
from keras_ssl.zoo.comparison import WHAT, compare_with_reference
from keras_ssl.zoo.converting import build_network, convert_source
from keras_ssl.zoo.download import check
from keras_ssl.zoo.fingerprint import features_of_fixed_image
from keras_ssl.zoo.published import File, Published

TOLERANCE = 1e-3  # of features, over the largest


def verify_published(
    entry: Published,
    weights: str | Path = PUBLISHED,
    *,
    accept_licence: bool = False,
    any_file: bool = False,
    reference: bool = True,
    say: Say = cache.say_to_stderr,
) -> list[Check]:
    """Counts, converts and compares again what the cache holds of a published encoder.

    A reference network reads the same file, in PyTorch or NumPy, and its features of random images are compared with
    those of the converted network, whatever was recorded before.

    Args:
        entry: Published.
        weights: str or Path. The file to check, as in `zoo.load`.
        accept_licence: bool. See `zoo.load`.
        any_file: bool. See `zoo.load`.
        reference: bool. Whether the reference network is run. Defaults to `True`.
        say: callable. Gets sentences on what happens.

    Returns:
        The checks; all is well if no `ok` is False.

    Raises:
        ZooError: if the file cannot be had.
    """
    slot = loading.install(
        entry, weights, accept_licence=accept_licence, any_file=any_file, say=say
    )
    certificate = cache.read_json(slot / loading.CERTIFICATE)
    if str(weights) == PUBLISHED:
        source = origin.kept_source(entry)
    else:
        source = origin.given_files(entry, str(weights), any_file, say)
    checks = [Check("layout", entry.layout, certificate["conversion"]["layout"], None)]
    if source is None:
        checks.append(Check("published file", "in the cache", "not kept there", None))
    else:
        checks += _against_source(entry, source, certificate)
    network = loading.fill(build_network(entry, dtype="float32"), slot / loading.WEIGHTS)
    digest = certificate["conversion"]["sha256"]
    checks.append(_same("stored weights", digest, weights_digest(network)))
    features = features_of_fixed_image(network, entry)
    checks.append(_close("features, as converted", certificate["features"], features))
    if entry.fingerprint:
        checks.append(_close("features, real file", list(entry.fingerprint), features))
    else:
        checks.append(
            Check("features, real file", "no fingerprint of the real file is known", "", None)
        )
    if reference:
        checks.append(compare_with_reference(entry, source, network, say))
    else:
        checks.append(Check(WHAT, "was not asked for", "", None))
    return checks


def verify_own(entry: Entry) -> list[Check]:
    """Compares the files of one of this library's own entries with their SHA-256."""
    return [
        _same(name, expected, cache.hash_file(entry.folder / name)["sha256"])
        for name, expected in entry.files.items()
    ]


def _against_source(
    entry: Published, source: origin.Source, certificate: dict[str, Any]
) -> list[Check]:
    checks = [_same("published file, SHA-256", certificate["source_sha256"], source.sha256)]
    for file in entry.files:
        known = origin.pinned(entry, file)
        checks.append(
            Check(f"known of {file.name}", known.known_hash(), "", None)
            if not (known.sha256 or known.md5)
            else _checked(known, source)
        )
    try:
        _, _, again = convert_source(entry, source)
    except ZooError as error:
        return [*checks, Check("conversion", "fits", str(error), False)]
    before, now = certificate["conversion"], again["conversion"]
    for key, text in (
        ("tensors_used", "tensors used"),
        ("variables_filled", "variables filled"),
        ("left_out", "tensors left out"),
        ("outside", "tensors outside the encoder"),
    ):
        counts = [
            str(len(made[key]) if isinstance(made[key], list) else _total(made[key]))
            for made in (before, now)
        ]
        checks.append(_same(text, *counts))
    checks.append(_same("weights, converted again", before["sha256"], now["sha256"]))
    if entry.head:
        one, two = (_digest(made["head"]) for made in (certificate, again))
        checks.append(_same("head, converted again", one, two))
    return checks


def _checked(known: File, source: origin.Source) -> Check:
    path = source.path_of(known, only=len(source.paths) == 1) or source.paths[0]
    try:
        found = check(known, path)
    except ZooError as error:
        return Check(f"known of {known.name}", known.known_hash(), str(error), False)
    return Check(f"known of {known.name}", known.known_hash(), found, True)


def _digest(made: dict[str, Any]) -> str:
    """Returns a hash of a part of a certificate that is the same before and after it was a file."""
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def _total(count: int | dict[str, int]) -> int:
    return sum(count.values()) if isinstance(count, dict) else count


def _same(what: str, expected: str, found: str) -> Check:
    return Check(what, expected, found, expected == found)


def _close(what: str, expected: list[float], found: list[float]) -> Check:
    if len(expected) > len(found):
        return Check(what, f"{len(expected)} numbers", f"{len(found)} numbers", False)
    one, two = np.asarray(expected), np.asarray(found[: len(expected)])
    difference = float(np.abs(one - two).max() / max(np.abs(one).max(), 1e-12))
    return Check(
        what,
        f"largest difference below {TOLERANCE:g}",
        f"{difference:.1e}",
        bool(difference <= TOLERANCE),
    )
