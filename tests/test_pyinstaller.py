"""What PyInstaller is told: a hook for each package whose files it would leave out."""

from __future__ import annotations

from importlib.metadata import requires
from pathlib import Path

import steerx_edge
from steerx_edge.__pyinstaller import hook_dirs


def test_hooks_are_for_this_package_and_what_it_needs() -> None:
    (folder,) = hook_dirs()
    hooked = {path.stem.removeprefix("hook-") for path in Path(folder).glob("hook-*.py")}
    assert hooked == {"steerx_edge", "llama_cpp", "py3langid"}
    needed = " ".join(requires("steerx-edge") or ()).replace("-", "_")
    assert all(name in f"steerx_edge {needed}" for name in hooked)
    assert Path(folder).parent == Path(steerx_edge.__file__).parent
