"""What a ViT may be made of: the check of its settings."""

from __future__ import annotations

from typing import Any

POSITIONS = ("learned", "sincos", "sincos_row_first", "rope")
POOLINGS = ("token", "mean", "mean_then_norm")


def check_settings(settings: dict[str, Any], image_size: int) -> None:
    """Refuses settings of a ViT that do not go together; blocks and layers check their own.

    Raises:
        ValueError: if a value is unknown, negative or does not fit another.
    """
    for name, allowed in (("positions", POSITIONS), ("pooling", POOLINGS)):
        if settings[name] not in allowed:
            raise ValueError(
                f"`{name}` must be one of {allowed}. Received: {name}={settings[name]!r}"
            )
    if settings["pooling"] == "token" and not settings["class_token"]:
        raise ValueError('`pooling="token"` needs a class token. Received: class_token=False')
    size = settings["patch_size"]
    for name, side in (("image_size", image_size), ("position_size", settings["position_size"])):
        if side is not None and (size < 1 or side < size or side % size):
            raise ValueError(
                f"`{name}` must be a multiple of `patch_size`. Received: {name}={side}, patch_size={size}"
            )
    if settings["depth"] < 1:
        raise ValueError(f"`depth` must be positive. Received: depth={settings['depth']}")
    if settings["num_registers"] < 0:
        raise ValueError(
            "`num_registers` must not be negative. "
            f"Received: num_registers={settings['num_registers']}"
        )
    if settings["positions"] == "rope" and (settings["width"] // settings["num_heads"]) % 4:
        raise ValueError(
            '`positions="rope"` needs heads with a multiple of 4 channels. '
            f"Received: width={settings['width']}, num_heads={settings['num_heads']}"
        )
