"""What docstrings say of arguments, for the help of flags."""

from __future__ import annotations


def field_help(cls: type) -> dict[str, str]:
    """Returns the help of each field of a settings class, from its docstring."""
    return parse_attributes(cls.__doc__ or "")


def parse_attributes(docstring: str) -> dict[str, str]:
    """Returns name -> text of the `Args:` or `Attributes:` section of a docstring."""
    texts: dict[str, str] = {}
    inside, indent, name = False, 0, ""
    for line in docstring.splitlines():
        stripped = line.strip()
        if stripped in ("Args:", "Attributes:"):
            inside, indent, name = True, len(line) - len(line.lstrip()) + 4, ""
        elif inside and stripped:
            depth = len(line) - len(line.lstrip())
            if depth < indent:
                inside = False
            elif depth == indent and ": " in stripped:
                name, text = stripped.split(": ", 1)
                texts[name] = text.split(". ", 1)[-1] if ". " in text else text
            elif name:
                texts[name] += " " + stripped
    return texts
