"""Fetching one file: mirrors in order, resumed where it broke off, size and hash checked. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

import keras_ssl
from keras_ssl.zoo.cache import Say, ZooError, hash_file, read_json, write_json
from keras_ssl.zoo.progress import Update, progress
from keras_ssl.zoo.published import File, format_bytes

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # at one address, without a byte of progress
PAUSE = 1.0  # seconds before the second attempt; doubles
_PIECE = 1 << 18
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)
_LATER = (408, 425, 429, 500, 502, 503, 504)  # worth another attempt


class _Unusable(Exception):
    """This address does not give the file; another may."""


class _Restart(Exception):
    """What is there of the file does not go on with what the server has."""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A file that was fetched and checked: its address, size in bytes and SHA-256."""

    url: str
    size: int
    sha256: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects over HTTP, never from an encrypted address to a plain one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Returns the next request, or raises for an address that is not followed."""
        before, after = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise _Unusable(f"redirects to {without_query(newurl)}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def without_query(address: str) -> str:
    """Returns an address of the web without what may be a secret in it: query, fragment, user; others as they are."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return address
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check(file: File, path: Path) -> str:
    """Returns the SHA-256 of a file after comparing size and hash with what is known of it.

    Raises:
        ZooError: if one differs.
    """
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise ZooError(
            f"Expected {file.name} with {file.size} bytes. Received: {size} bytes, {path}."
        )
    found = hash_file(path, ("sha256", "md5") if file.md5 else ("sha256",))
    for kind, known in (("sha256", file.sha256), ("md5", file.md5)):
        if not found.get(kind, "").startswith(known):
            raise ZooError(
                f"Expected {file.name} with {file.known_hash()}. "
                f"Received: {kind.upper()} {found[kind]}, {path}."
            )
    return found["sha256"]


def fetch(file: File, target: Path, say: Say) -> Fetched:
    """Fetches a file to a path; a part of it that an earlier process left beside the path is used.

    Args:
        file: File. Its addresses are tried in order; size and hash are checked if they are known.
        target: Path. Written only when all is well.
        say: callable. Gets sentences on what happens.

    Returns:
        `Fetched`.

    Raises:
        ZooError: if no address gives the file.
    """
    problems = []
    target.parent.mkdir(parents=True, exist_ok=True)
    for url in file.urls:
        try:
            return _fetch_from(url, file, target, say)
        except _Unusable as problem:
            problems.append(f"{without_query(url)} {problem}")
            say(f"{problems[-1]}.")
    raise ZooError(
        f"Expected to get {file.name}. Received: {'; '.join(problems)}. If this machine has no network, "
        "fetch the file on another and give it with weights=FILE (--weights FILE)."
    )


def _fetch_from(url: str, file: File, target: Path, say: Say) -> Fetched:
    part = target.with_name(target.name + ".part")
    for fresh in (False, True):
        if fresh:
            _discard(part)
        resumed = part.exists()
        _download(url, part, file, say)
        try:
            sha256 = check(file, part)
        except ZooError as error:
            if resumed and not fresh:
                say(f"{file.name} was put together from parts that do not fit; once more.")
                continue
            _discard(part)
            raise _Unusable(f"gave another file ({error})") from error
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
        _discard(part)
        return Fetched(url, target.stat().st_size, sha256)
    raise AssertionError  # the second turn returns or raises


def _download(url: str, part: Path, file: File, say: Say) -> None:
    """Brings the part to the whole file, over as many connections as it takes."""
    attempt = 0
    with progress(file.name, say) as update:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                return _connect(url, part, file, say, update)
            except _Restart:
                _discard(part)
                problem = "changed while it was fetched"
            except urllib.error.HTTPError as error:
                if error.code not in _LATER:
                    raise _Unusable(f"answers {error.code} {error.reason}") from error
                problem = f"answers {error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:
                _refuse_disk(error, part)
                problem = f"cannot be reached ({getattr(error, 'reason', None) or error!r})"
            grown = part.exists() and part.stat().st_size > before
            attempt = 1 if grown else attempt + 1
            if attempt >= ATTEMPTS:
                raise _Unusable(problem)
            time.sleep(PAUSE * 2 ** (attempt - 1))


def _connect(url: str, part: Path, file: File, say: Say, update: Update) -> None:
    """Fetches what is missing of the part over one connection."""
    state = read_json(_state(part)) or {}
    shown = without_query(url)
    start = part.stat().st_size if part.exists() and state.get("url") == shown else 0
    validator = state.get("validator", "")
    if not validator and not (file.sha256 or file.md5):
        start = 0  # nothing would tell that the two halves are of one file
    headers = {"User-Agent": f"keras_ssl/{keras_ssl.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": validator} if validator else {}
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise _Restart from error
        raise
    with response:
        start, total = _sizes(response, start, state)
        if file.size is not None and total not in (None, file.size):
            raise _Unusable(f"has {total} bytes, expected {file.size}")
        total = file.size if total is None else total
        _check_space(part, (total or 0) - start, file)
        whole = "an unknown size" if total is None else format_bytes(total)
        say(f"{'going on with' if start else 'fetching'} {file.name}, {whole}, from {shown}")
        write_json(
            _state(part), {"url": shown, "validator": _validator(response.headers), "total": total}
        )
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            try:
                done = _copy(response, out, start, total, update)
            except _Unusable:
                _discard(part)
                raise
    if total is not None and done != total:
        raise ConnectionError(f"broke off after {done} of {total} bytes")


def _sizes(
    response: http.client.HTTPResponse, start: int, state: dict[str, object]
) -> tuple[int, int | None]:
    """Returns where the answer begins in the file, and the size of the file."""
    if response.status == 206:
        parts = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if parts is None or int(parts[1]) != start:
            raise _Restart
        total = None if parts[2] == "*" else int(parts[2])
        if state.get("total") not in (None, total):
            raise _Restart
        return start, total
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _copy(
    response: http.client.HTTPResponse, out: IO[bytes], done: int, total: int | None, update: Update
) -> int:
    while piece := response.read1(_PIECE):
        done += len(piece)
        if total is not None and done > total:
            raise _Unusable(f"gives more than {total} bytes")
        out.write(piece)
        update(done, total)
    return done


def _validator(headers: http.client.HTTPMessage) -> str:
    """Returns what names this version of the file exactly: a strong ETag, else the date of change."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _check_space(part: Path, needed: int, file: File) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise ZooError(
            f"Expected {format_bytes(needed)} of free space for {file.name}; set KERAS_SSL_HOME to a larger disk. "
            f"Received: {format_bytes(free)} in {part.parent}."
        )


def _refuse_disk(error: Exception, part: Path) -> None:
    """Raises if what failed was the disk, not the network."""
    if isinstance(error, OSError) and error.errno in _DISK:
        raise ZooError(
            f"Expected to write {part}; make room, or set KERAS_SSL_HOME to another disk. "
            f"Received: {error.strerror}."
        ) from error


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)
