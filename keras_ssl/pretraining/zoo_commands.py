"""What `keras-ssl zoo` prints. Listing imports no TensorFlow."""

from __future__ import annotations

import json
from typing import Any

from keras_ssl import env, zoo
from keras_ssl.zoo import cache as zoo_cache
from keras_ssl.zoo.catalog import get_entry
from keras_ssl.zoo.published import Published, format_bytes, suggest_name


def list(as_json: bool = False, **filters: Any) -> int:
    """Prints the entries that fit, a line each or as JSON."""
    entries = zoo.list(**filters)
    if as_json:
        print(json.dumps([_facts(entry) for entry in entries], indent=2))
        return 0
    for entry in entries:
        print(entry.line())
    if not entries:
        print(f"No published encoder fits.{_closest(filters)}")
    return 0


def card(name: str) -> int:
    """Prints the card of an entry."""
    print(zoo.card(name))
    return 0


def inspect(file: str) -> int:
    """Prints what is in a checkpoint file."""
    from keras_ssl import checkpoints

    print(checkpoints.describe(file))
    return 0


def fetch(name: str, weights: str | None, accept_licence: bool) -> int:
    """Brings an entry into the cache, from its address or a file."""
    entry = get_entry(name)
    if not isinstance(entry, Published):
        print(f"{name} is one of this library's own entries and is here already: {entry.folder}")
        return 0
    env.import_tensorflow_quietly()
    from keras_ssl.zoo.loading import install

    slot = install(
        entry,
        weights or zoo_cache.PUBLISHED,
        accept_licence=accept_licence,
        as_published=True,
    )
    print(f"{name} is ready in {slot}: keras_ssl.zoo.load({name!r})")
    return 0


def verify(
    name: str, weights: str | None, accept_licence: bool, any_file: bool, reference: bool
) -> int:
    """Prints the table of checks of an entry; 1 if one fails."""
    entry = get_entry(name)
    env.import_tensorflow_quietly()
    from keras_ssl.zoo.verify import verify_own, verify_published

    if isinstance(entry, Published):
        checks = verify_published(
            entry,
            weights or zoo_cache.PUBLISHED,
            accept_licence=accept_licence,
            any_file=any_file,
            reference=reference,
        )
    else:
        checks = verify_own(entry)
    marks = {True: "ok", False: "DIFFERS", None: "-"}
    for check in checks:
        print(f"{marks[check.ok]:8}{check.what}: expected {check.expected}; found {check.found}")
    failed = sum(check.ok is False for check in checks)
    same = "nothing differs from what was " + (
        "converted before" if isinstance(entry, Published) else "recorded"
    )
    print(f"{name}: {f'{failed} of {len(checks)} checks failed' if failed else same}")
    return 1 if failed else 0


def pins(forget: str | None = None) -> int:
    """Prints the pinned hashes, or forgets those of an entry."""
    if forget is not None:
        known = {key.partition("/")[0] for key in zoo_cache.read_pins()}
        if forget not in known:
            raise zoo_cache.ZooError(
                f"Expected an entry with pins, one of {', '.join(sorted(known)) or 'none'}. "
                f"Received: {forget!r}.{suggest_name(forget, known)}"
            )
        count = zoo_cache.forget_pins(forget)
        print(f"forgot {count} pins of {forget}")
        return 0
    for name, pin in zoo_cache.read_pins().items():
        print(f"{name}: {pin['sha256']}, {pin['size']} bytes, {pin['date']}, from {pin['from']}")
    print(f"{len(zoo_cache.read_pins())} pins in {zoo_cache.folder() / 'pins.json'}")
    return 0


def cache(clear: str | None = None) -> int:
    """Prints the sizes of what is in the cache, or removes an entry or all."""
    if clear is not None:
        print(f"removed {format_bytes(zoo_cache.clear(clear))}")
        return 0
    sizes = zoo_cache.sizes()
    for name, (files, converted) in sizes.items():
        print(f"{name}: files {format_bytes(files)}, converted {format_bytes(converted)}")
    total = sum(map(sum, sizes.values()))
    print(f"{len(sizes)} entries, {format_bytes(total)} in {zoo_cache.folder()}")
    return 0


def _closest(filters: dict[str, Any]) -> str:
    """Returns " Did you mean ...?" for the filters whose value no entry has."""
    hints = ""
    for key in ("method", "backbone", "source"):
        known = {getattr(entry, key) for entry in zoo.list()}
        if (value := filters.get(key)) is not None and value not in known:
            hints += suggest_name(value, sorted(known))
    return hints


def _facts(entry: Any) -> dict[str, Any]:
    facts = {
        key: getattr(entry, key)
        for key in ("name", "source", "method", "backbone", "licence", "commercial", "access")
    }
    if not isinstance(entry, Published):
        return {**facts, "measured": entry.results}
    return {
        **facts,
        "settings": dict(entry.settings),
        "image_size": entry.image_size,
        "data": entry.data,
        "epochs": entry.epochs,
        "published": dict(entry.metrics),
        "published_by": entry.metrics_by,
        "layout": entry.layout,
        "size": entry.size_text(),
        "files": [
            {"name": file.name, "urls": file.urls, "hash": file.known_hash()}
            for file in entry.files
        ],
        "unverified": entry.unverified,
    }
