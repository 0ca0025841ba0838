"""Documents that are ZIP archives of XML, opened with limits."""

from __future__ import annotations

import io
import zipfile

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.source import Source

_ZIP = b"PK\x03\x04"
_MOST = 256 << 20  # bytes of a document, and of one file in it


def parts_in(source: Source) -> frozenset[str]:
    """Return the names of the files in a document; none if it is no archive.

    Raises:
        HistoryError: The file cannot be read.
    """
    if source.is_folder or not source.beginning.startswith(_ZIP):
        return frozenset()
    try:
        return frozenset(open_document(source).namelist())
    except HistoryError:
        return frozenset()


def open_document(source: Source) -> zipfile.ZipFile:
    """Open a document, whose files can be read at once.

    Raises:
        HistoryError: It is damaged, or larger than 256 MiB, packed or unpacked.
    """
    with source.open() as file:
        data = file.read(_MOST + 1)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError) as error:
        raise HistoryError(f"{source} is a damaged document ({error}).") from error
    if max([len(data), *(info.file_size for info in archive.infolist())]) > _MOST:
        raise HistoryError(f"{source} is a document of more than 256 MiB. Split it.")
    return archive
