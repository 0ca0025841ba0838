"""Packages that only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from steerx_edge.errors import HistoryError


def needed(module: str, *, extra: str, to: str) -> Any:
    """Import a package of an extra.

    Args:
        module: What to import.
        extra: The extra of steerx-edge that it belongs to.
        to: What it is needed for, to complete the sentence "... needs a package".

    Raises:
        HistoryError: It is not installed; says the command.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise HistoryError(
            f"To {to}, a package is missing ({error.name}). Install it with: "
            f"pip install 'steerx-edge[{extra}]'"
        ) from error
