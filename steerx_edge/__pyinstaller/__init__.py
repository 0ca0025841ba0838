"""What PyInstaller must know to put the package into a program; it finds this by an entry point."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder of the hooks, for PyInstaller."""
    return [str(Path(__file__).parent)]
