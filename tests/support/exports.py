"""Writing exports as programs do, and what readers make of them."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerx_edge.history.readers import Reader
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Dropped, Text

WHATSAPP_CHAT = "".join(
    f"12/01/2024, 10:{2 * i:02} - Ana: Who brings the plates {i}?\n"
    f"12/01/2024, 10:{2 * i + 1:02} - Kim: I will bring the jug {i}.\n"
    for i in range(8)
)
"""Of two people, each with eight messages."""


def jsonl(*records: Any) -> str:
    """JSON lines."""
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def write(path: Path, content: Any) -> Path:
    """Write text, bytes, a value as JSON, or a folder of these; returns the path."""
    if isinstance(content, dict) and all(isinstance(each, str) and "." in each for each in content):
        for name, inner in content.items():
            write(path / name, inner)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", newline="")
    return path


def zipped(folder: Path, inside: str = "") -> Path:
    """Put a folder into a ZIP archive beside it, below a folder in the archive if one is named."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(folder)}")
        archive.writestr("__MACOSX/._a", b"\0")
    return path


class Result:
    """What a reader found.

    Attributes:
        kept: Each request with its text, in order.
        dropped: How many things were left out, by reason.
        texts: The texts.
        left_out: What was left out.
    """

    def __init__(self, reader: Reader, path: Path, *me: str) -> None:
        source = Source(path)
        assert reader.recognize(source)
        found = list(reader.read(source, Options(me=me)))
        self.texts = [each for each in found if isinstance(each, Text)]
        self.left_out = [each for each in found if isinstance(each, Dropped)]
        self.kept = [(text.item.request, text.item.response) for text in self.texts]
        self.dropped: Mapping[str, int] = Counter(each.reason for each in self.left_out)

    def excerpts(self, reason: str) -> list[str]:
        """The beginnings of what was left out for a reason."""
        return [each.excerpt for each in self.left_out if each.reason == reason]
