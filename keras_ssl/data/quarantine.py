"""Which records are broken, what stands in for them, and when that is too many."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from pathlib import Path

from keras_ssl.data.base import DataError

_LIMIT_PERCENT = 10
_EARLY_COUNT, _EARLY_SIGMAS = 20, 4  # when the share of the records read so far is telling


class Quarantine:
    """Counts and lists broken records, and stops a run on data that are mostly broken.

    A record found broken is not tried again by this process, is counted once, and is listed once
    in the file, over restarts too. A restarted process tries listed records again, so that
    repaired files are used.

    Reading stops with a `DataError` as soon as either holds:

    - more than 10 % of all records (rounded up to whole records) have been found broken;
    - at least 20 of the records read so far in shuffled order were broken, and that is more than
      10 % beyond chance (four standard deviations), which stops large broken sets early. (Records
      read in order do not count: one bad folder at the start says nothing of the rest.)

    Args:
        num_samples: int. Number of records in the source.
        path: str, Path or None. File of JSON lines `{"path", "error", "sample_id"}` to append to;
            None keeps no file.
    """

    def __init__(self, num_samples: int, path: str | Path | None = None) -> None:
        self.num_samples = num_samples
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._broken: set[int] = set()
        self._shuffled_reads = 0
        self._shuffled_broken = 0
        self._listed, self._torn = self._read_list()

    @property
    def num_broken(self) -> int:
        """int. Distinct broken records met by this process."""
        return len(self._broken)

    def is_broken(self, sample_id: int) -> bool:
        """Returns True if this process has found the record broken."""
        return sample_id in self._broken

    def count_reads(self, count: int, shuffled: bool) -> None:
        """Notes that `count` records are about to be read; `shuffled` if they are in random order."""
        if shuffled:
            with self._lock:
                self._shuffled_reads += count

    def add(self, sample_id: int, path: str, error: Exception, shuffled: bool) -> None:
        """Notes a broken record.

        Raises:
            DataError: if too many are broken now.
        """
        reason = f"{type(error).__name__}: {error}"
        with self._lock:
            if sample_id in self._broken:
                return
            self._broken.add(sample_id)
            self._shuffled_broken += shuffled
            key = (sample_id, path)
            if key not in self._listed:
                self._listed.add(key)
                self._append({"path": path, "error": reason, "sample_id": sample_id})
            self._check(path, reason)

    def _check(self, path: str, reason: str) -> None:
        allowed = -(-self.num_samples * _LIMIT_PERCENT // 100)
        where = f", all listed in {self.path}" if self.path else ""
        last = f"the last was {path} ({reason}){where}; repair or remove them and start again."
        if self.num_broken > allowed:
            raise DataError(
                f"Expected at most {_LIMIT_PERCENT} % broken images ({allowed:,} of "
                f"{self.num_samples:,}), but found {self.num_broken:,} so far: {last}"
            )
        bad, read = self._shuffled_broken, self._shuffled_reads
        share = _LIMIT_PERCENT / 100
        surprising = share * read + _EARLY_SIGMAS * math.sqrt(share * (1 - share) * read)
        if bad >= _EARLY_COUNT and bad > surprising:
            raise DataError(
                f"Expected at most {_LIMIT_PERCENT} % broken images, but found {bad:,} among the "
                f"first {read:,} read: {last}"
            )

    def _read_list(self) -> tuple[set[tuple[int, str]], bool]:
        """Returns what the file lists already, and whether a kill cut its last line short."""
        if self.path is None or not self.path.exists():
            return set(), False
        text = self.path.read_text(encoding="utf-8")
        listed = set()
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                listed.add((entry["sample_id"], entry["path"]))
            except (ValueError, KeyError, TypeError):
                continue
        return listed, bool(text) and not text.endswith("\n")

    def _append(self, entry: dict[str, str | int]) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._torn else "") + json.dumps(entry) + "\n")
        self._torn = False


def stand_in(position: int, attempt: int, num_samples: int) -> int:
    """Returns the record to try instead of a broken one.

    It depends on nothing but the arguments, so every process and every restart shows the same.

    Args:
        position: int. Position in the sample stream.
        attempt: int >= 1. How many records were found broken at this position.
        num_samples: int. Number of records in the source.

    Returns:
        int in [0, num_samples).
    """
    word = hashlib.blake2b(f"{position}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(word, "little") % num_samples
