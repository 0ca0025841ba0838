"""A history as JSON lines, written while it is read: memory does not grow with its size."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from steerx_edge.history.opening import OpenedHistory
from steerx_edge.history.readers.texts import Text
from steerx_edge.history.tally import Tally
from steerx_edge.profile.files import about, check_writable, replacing

_REPORTED_EVERY = 100  # texts, and things left out


class HistoryFile:
    """A file of JSON lines with `prompt`, `response` and, if it is known, `written`.

    Texts are kept in a private file without a name until they are saved in their order. It is a
    context manager; without `save` it leaves nothing behind.

    Args:
        path: The file to write.

    Raises:
        ProfileError: It cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_writable(path)
        self._path = path
        self._target = Path(os.path.realpath(path))
        self._offsets = array("Q", [0])
        self._open = ExitStack()

    def __enter__(self) -> HistoryFile:
        with about(self._path, "written"):
            self._lines = self._open.enter_context(tempfile.TemporaryFile(dir=self._target.parent))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, text: Text) -> None:
        """Keep a text."""
        fields = {"prompt": text.item.request, "response": text.item.response}
        if text.written:
            fields["written"] = text.written.isoformat()
        with about(self._path, "written"):
            n = self._lines.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
        self._offsets.append(self._offsets[-1] + n)

    def save(self, tally: Tally) -> None:
        """Write the kept texts in their order, whole or not at all; readable by the user alone."""
        with (
            about(self._path, "written"),
            replacing(self._target) as (temporary,),
            temporary.open("wb") as file,
        ):
            for place in tally.order():
                start, end = self._offsets[place], self._offsets[place + 1]
                self._lines.seek(start)
                file.write(self._lines.read(end - start))


def read_through(
    opened: OpenedHistory,
    tally: Tally,
    file: HistoryFile | None,
    progress: Callable[[str, int, int | None], None],
) -> None:
    """Read a history to its end.

    Args:
        opened: The history.
        tally: Counts what is found.
        file: Gets the texts.
        progress: Called now and then with the step and how many things were found so far.

    Raises:
        HistoryError: The history cannot be read.
        ProfileError: The file cannot be written.
    """
    for number, each in enumerate(opened.found, start=1):
        tally.add(each)
        if file is not None and isinstance(each, Text):
            file.add(each)
        if number % _REPORTED_EVERY == 0:
            progress("reading", number, None)
