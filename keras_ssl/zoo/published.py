"""Other people's encoders: what each published file is, where it lies and how it becomes a Keras network.

The tables are in `keras_ssl.zoo.sources`. Everything here is what the publishers say; nothing was measured by this
library, and what nobody states is listed as unverified. Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any

from keras_ssl.zoo.terms import LICENCES, PREPROCESSING, Licence, Preprocessing

ACCESS = ("open", "gated", "manual")
FULL = "_full"  # ends the names of entries whose file holds more than that of the entry without it: the head


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a published encoder.

    Args:
        name: str. Its name in the cache.
        urls: strs. Where it can be had; the first that answers is taken. Empty for files that cannot be fetched.
        size: int. Exact size in bytes. Defaults to `None` (not known).
        sha256: str. The SHA-256, or the first digits of it. Defaults to `""` (not known).
        md5: str. The MD5, or the first digits of it. Defaults to `""` (not known).
        hash_source: str. Who says so: `"official"` or `"third party"`. Defaults to `""` (nobody).
        sha256_source: str. Who says the SHA-256, if not the same. Defaults to `""` (the same).
    """

    name: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    hash_source: str = ""
    sha256_source: str = ""

    def known_hash(self) -> str:
        """Returns what is known of the file's hashes and who says so, in words."""
        known = []
        for kind, digits, full, source in (
            ("SHA-256", self.sha256, 64, self.sha256_source or self.hash_source),
            ("MD5", self.md5, 32, self.hash_source),
        ):
            if digits:
                begins = "" if len(digits) == full else "begins with "
                known.append(f"{kind} {begins}{digits} ({source})")
        return "; ".join(known) or "none published; pinned on first download"


@dataclasses.dataclass(frozen=True, repr=False)
class Published:
    """One encoder that somebody else trained and published.

    Args:
        name: str. Name of the entry.
        method: str. Pre-training method, under this library's name where it has it.
        source: str. Project that published it.
        backbone: str. Name for `keras_ssl.backbones.build`.
        layout: str. Name in `keras_ssl.conversion.LAYOUTS`.
        licence: str. Key of `LICENCES`: of the weights, not of the project's code.
        files: Files. The first is the one to give as `weights=`.
        settings: mapping. Arguments of `build`.
        image_size: int. Side of the images of the published evaluation, in pixels.
        top_keys: strs. Dotted places of the tensors in the file; the first that exists is taken, `""` is the root.
        prefixes: strs. Beginnings of names that are removed; the first that occurs is taken, and other names are
            no part of the encoder. A `module.` in a name is taken out before.
        head: str. Kind in `keras_ssl.conversion.HEADS` of the head that the file holds beside the encoder. Defaults
            to `""` (none, or none that can be read).
        head_prefixes: strs. As `prefixes`, for the names of the head's tensors where they stand beside the encoder's.
            Defaults to `()` (they stand among those that `prefixes` selects).
        container: str. `"torch"`, `"tensorflow"`, `"saved model"`, `"byol pickle"` or `"caffemodel"`.
        epochs: int. Epochs of pre-training. Defaults to `None` (not stated).
        data: str. What it was pre-trained on.
        access: str. `"open"`: fetched by name; `"gated"`: the publisher wants a form first; `"manual"`: the file
            must be taken out of an archive by hand.
        how: str. For gated and manual files: how to get them.
        preprocessing: str. Key of `PREPROCESSING`.
        metrics: mapping. Published ImageNet top-1 in percent under `linear` and `knn`, and others by name.
        metrics_by: str. Who published the numbers. Defaults to `"the authors"`.
        payload: int. Bytes of the encoder's tensors in float32, computed from their shapes; a file with heads,
            optimizer or a second network is larger. Defaults to `None` (not computed).
        approximate_size: str. What the publisher says about the size, if it is rounded.
        notes: strs. What to know before use.
        unverified: strs. Facts that were not found in the publisher's own code or text.
        fingerprint: floats. First features of `verify.fixed_image` from the real file. Defaults to `()` (not
            known).
    """

    name: str
    method: str
    source: str
    backbone: str
    layout: str
    licence: str
    files: tuple[File, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: int = 224
    top_keys: tuple[str, ...] = ("",)
    prefixes: tuple[str, ...] = ("",)
    head: str = ""
    head_prefixes: tuple[str, ...] = ()
    container: str = "torch"
    epochs: int | None = None
    data: str = "ImageNet-1K"
    access: str = "open"
    how: str = ""
    preprocessing: str = "imagenet"
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metrics_by: str = "the authors"
    payload: int | None = None
    approximate_size: str = ""
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    fingerprint: tuple[float, ...] = ()

    @property
    def terms(self) -> Licence:
        return LICENCES[self.licence]

    @property
    def commercial(self) -> bool | None:
        return self.terms.commercial

    @property
    def images(self) -> Preprocessing:
        return PREPROCESSING[self.preprocessing]

    def __repr__(self) -> str:
        return f"<Published {self.line()}>"

    def line(self) -> str:
        """Returns what it is and what its publisher measured, in one line."""
        linear, knn = (format_percent(self.metrics.get(key)) for key in ("linear", "knn"))
        epochs = f", {self.epochs} epochs" if self.epochs else ""
        access = "" if self.access == "open" else f"; {self.access}"
        return (
            f"{self.name}: {self.method}, {self.network()}, {self.data}{epochs}; "
            f"published k-NN {knn}, linear {linear}; {self.terms.name}{access}"
        )

    def network(self) -> str:
        """Returns the backbone's name with what tells it apart: width, patch size."""
        shown = {"width": "w{}", "patch_size": "/{}", "selective_kernels": " sk"}
        marks = (
            text.format(self.settings[key]) for key, text in shown.items() if key in self.settings
        )
        return self.backbone + "".join(" " + mark if mark[0] == "w" else mark for mark in marks)

    def size_text(self) -> str:
        """Returns what is known of the size of the files, in words."""
        if all(file.size for file in self.files):
            return format_bytes(sum(file.size or 0 for file in self.files))
        if self.approximate_size:
            return self.approximate_size
        if self.payload:
            return f"at least {format_bytes(self.payload)}"
        return "not stated"


@functools.cache
def published() -> dict[str, Published]:
    """Returns all published entries by name, in the order of the tables.

    Raises:
        RuntimeError: if two entries have one name.
    """
    from keras_ssl.zoo.sources import all_entries

    table: dict[str, Published] = {}
    for entry in all_entries():
        if entry.name in table:
            raise RuntimeError(f"Two published entries are called {entry.name!r}.")
        table[entry.name] = entry
    return table


def suggest_name(name: str, names: Any) -> str:
    """Returns " Did you mean ...?" for the closest of some names, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def format_percent(value: float | None) -> str:
    """Returns a percentage as text; None as "not stated"."""
    return "not stated" if value is None else f"{value:g} %"


def format_bytes(count: float) -> str:
    """Returns a number of bytes in MB or GB (powers of 1000), below 0.1 MB in bytes."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{int(count)} bytes"


def write_published_card(entry: Published) -> str:
    """Returns the card of a published entry, in Markdown."""
    consent = ", accept_licence=True" if entry.terms.consent else ""
    given = "" if entry.access == "open" else f', weights="{entry.files[0].name}"'
    given += ', include="head"' if entry.name.endswith(FULL) else ""
    parts = [
        f"# {entry.name}\n\nEncoder `{entry.network()}`, pre-trained with {entry.method} on "
        f"{entry.data}, published by {entry.source}.\nThe numbers are the publisher's; this library has not "
        "opened the real file.",
        f'```python\nimport keras_ssl\n\nencoder = keras_ssl.zoo.load("{entry.name}"{given}{consent})\n'
        'features = encoder(images)["features"]  # images: RGB in [0, 1]\n```',
        "## Licence of the weights\n\n" + entry.terms.text(),
        "## Published\n\n" + _rows(_published_rows(entry)),
        "## Files\n\n" + "\n".join(_file_lines(entry)),
        "## Images\n\n" + entry.images.text(entry.image_size),
        "## Conversion\n\n" + _rows(_conversion_rows(entry)),
    ]
    for title, lines in (("Notes", entry.notes), ("Unverified", entry.unverified)):
        if lines:
            parts.append(f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _published_rows(entry: Published) -> dict[str, str]:
    rows = {"method": entry.method, "backbone": entry.network(), "data": entry.data}
    rows["epochs"] = str(entry.epochs or "not stated")
    for key, value in entry.metrics.items():
        rows[f"{key.replace('_', ' ')}, by {entry.metrics_by}"] = format_percent(value)
    return rows


def _file_lines(entry: Published) -> list[str]:
    lines = [f"Access: {entry.access}. Size: {entry.size_text()}. {entry.how}".rstrip()]
    for file in entry.files:
        lines += ["", f"`{file.name}`: {file.known_hash()}"]
        lines += [f"- <{url}>" for url in file.urls]
    return lines


def _conversion_rows(entry: Published) -> dict[str, str]:
    settings = ", ".join(f"{key}={value!r}" for key, value in entry.settings.items())
    return {
        "network": f'`backbones.build("{entry.backbone}", image_size={entry.image_size}'
        + (f", {settings})`" if settings else ")`"),
        "layout": f"`{entry.layout}`",
        "head": _head_text(entry),
        "container": entry.container,
        "tensors under": ", ".join(f"`{key}`" if key else "the root" for key in entry.top_keys),
        "prefixes removed": ", ".join(f"`{prefix}`" for prefix in entry.prefixes if prefix)
        or "none",
    }


def _head_text(entry: Published) -> str:
    if not entry.head:
        return "none"
    removed = ", ".join(f"`{prefix}`" for prefix in entry.head_prefixes if prefix)
    return f'`{entry.head}`, with `include="head"`' + (f"; {removed} removed" if removed else "")


def _rows(table: Mapping[str, str]) -> str:
    rows = (f"| {key} | {value} |" for key, value in table.items())
    return "\n".join(["| | |", "| --- | --- |", *rows])
