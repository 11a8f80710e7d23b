"""The files of a published encoder on this machine: fetched or given, compared with what is known, pinned."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from keras_ssl import env
from keras_ssl.zoo import cache
from keras_ssl.zoo.cache import Say, ZooError
from keras_ssl.zoo.download import check, fetch, without_query
from keras_ssl.zoo.published import File, Published


@dataclasses.dataclass(frozen=True)
class Source:
    """The files that a conversion starts from.

    Args:
        paths: Paths. The first is the one to read; it may be a folder, and the files in it follow.
        hashes: strs. SHA-256 of each path, `""` for a folder.
        where: str. Address or path that they came from.
    """

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    where: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the one file, or over the names and hashes of all."""
        files = [(path.name, value) for path, value in self._pairs() if value]
        if len(files) == 1:
            return files[0][1]
        return hashlib.sha256("".join(f"{v}  {n}\n" for n, v in sorted(files)).encode()).hexdigest()

    def path_of(self, file: File, only: bool) -> Path | None:
        """Returns the path that is a file of an entry; `only`: the entry has one file, under whatever name."""
        names = Path(file.name).name
        files = [path for path, value in self._pairs() if value]
        return next((path for path in files if only or path.name == names), None)

    def _pairs(self) -> zip[tuple[Path, str]]:
        return zip(self.paths, self.hashes, strict=True)


def require_consent(entry: Published, accept_licence: bool) -> None:
    """Raises if the licence of an entry's weights asks for a consent that was not given.

    Raises:
        ZooError: then; it says how to give it.
    """
    if not entry.terms.consent or accept_licence or entry.licence in env.accepted_licences():
        return
    raise ZooError(
        f"Expected consent to the licence of {entry.name}, {entry.terms.name} ({entry.terms.where}): pass "
        f"accept_licence=True, run `keras-ssl zoo fetch {entry.name} --accept-licence`, or set "
        f"KERAS_SSL_ACCEPT_LICENCES={entry.licence}. "
        f"Received: none. {entry.terms.summary}"
    )


def pinned(entry: Published, file: File) -> File:
    """Returns the file with its pinned SHA-256, where nothing full is known of it."""
    pin = cache.read_pins().get(f"{entry.name}/{file.name}")
    if pin is None or len(file.sha256) == 64:
        return file
    source = f"pinned on {pin['date']}; `keras-ssl zoo pins --forget {entry.name}` forgets it"
    return dataclasses.replace(file, sha256=pin["sha256"], size=pin["size"], sha256_source=source)


def fetch_published(entry: Published, say: Say) -> Source:
    """Fetches the files of an open entry that are not in the cache whole, and returns all.

    Raises:
        ZooError: if one cannot be had.
    """
    paths, hashes = [], []
    for file in entry.files:
        target = cache.files_folder(entry.name) / file.name
        wanted = pinned(entry, file)
        try:
            hashes.append(check(wanted, target))
        except (OSError, ZooError):  # not there, or torn
            hashes.append(fetch(wanted, target, say).sha256)
        paths.append(target)
    return Source(tuple(paths), tuple(hashes), _addresses(entry))


def given_files(entry: Published, given: str, any_file: bool, say: Say) -> Source:
    """Returns the files at a path or address, fetched if need be, compared with what is known of them.

    Raises:
        ZooError: if there are none, or they differ and `any_file` is False.
    """
    address = urllib.parse.urlsplit(given)
    known = [File(file.name) if any_file else pinned(entry, file) for file in entry.files]
    if address.scheme in ("http", "https"):
        path = _fetch_given(entry, given, known, say)
    elif address.scheme == "file":
        path = Path(urllib.request.url2pathname(address.path))
    else:
        path = Path(given).expanduser()
    source = given_source(entry, path, without_query(given))
    for file in known:
        found = source.path_of(file, len(known) == 1)
        if found is None:
            continue
        try:
            check(file, found)
        except ZooError as error:
            raise ZooError(
                f"{error} To load it all the same, pass any_file=True to zoo.load, each time."
            ) from error
    return source


def given_source(entry: Published, path: Path, where: str) -> Source:
    """Returns the files that belong to a given one: of a TensorFlow checkpoint or SavedModel all, else itself.

    Raises:
        ZooError: if there is no such file.
    """
    if not path.exists():
        raise ZooError(f"Expected a file for {entry.name}. Received: {path}, which does not exist.")
    rest: list[Path] = []
    if entry.container == "saved model" and not path.is_dir():
        raise ZooError(
            f"Expected the folder of a SavedModel for {entry.name}, with `variables/` in it. "
            f"Received: {path}, a file."
        )
    if path.is_dir():
        rest = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix == ".index":
        rest = sorted(path.parent.glob(f"{path.stem}.data-*"))
    return _hashed((path, *rest), where)


def kept_source(entry: Published) -> Source | None:
    """Returns the published files that are in the cache, or None if one is missing."""
    paths = tuple(cache.files_folder(entry.name) / file.name for file in entry.files)
    if not all(path.is_file() for path in paths):
        return None
    return _hashed(paths, _addresses(entry))


def pin_files(entry: Published, source: Source) -> None:
    """Pins the hashes of the files, where nobody published them whole."""
    for file in entry.files:
        path = source.path_of(file, len(entry.files) == 1)
        if path is not None and len(file.sha256) != 64:
            sha256 = source.hashes[source.paths.index(path)]
            cache.pin(entry.name, file.name, sha256, path.stat().st_size, source.where)


def _fetch_given(entry: Published, url: str, known: Sequence[File], say: Say) -> Path:
    if len(known) > 1:
        raise ZooError(
            f"Expected a file on this machine for {entry.name}, which has {len(known)} files. "
            f"Received: {without_query(url)}."
        )
    name = re.sub(r"[^\w.=-]", "_", urllib.parse.urlsplit(url).path.rpartition("/")[2])
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    target = cache.files_folder(entry.name) / f"{mark}-{name}"
    if not target.is_file():
        fetch(dataclasses.replace(known[0], urls=(url,)), target, say)
    return target


def _hashed(paths: Sequence[Path], where: str) -> Source:
    hashes = (cache.hash_file(path)["sha256"] if path.is_file() else "" for path in paths)
    return Source(tuple(paths), tuple(hashes), where)


def _addresses(entry: Published) -> str:
    return " ".join(file.urls[0] for file in entry.files if file.urls)
