"""Gmail's mail as Google exports it (Takeout): one mailbox with labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steerx_edge.history.readers.mailboxes import read_boxes
from steerx_edge.history.readers.mbox import MboxBox, is_mbox
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "mail from Gmail (Takeout)"

_LABELS = re.compile(rb"^X-(?:Gmail-Labels|GM-THRID):", re.MULTILINE | re.IGNORECASE)


def recognize(source: Source) -> str:
    """Return what shows that it is Gmail's mailbox, or an export with one."""
    if source.is_folder:
        found = next(_mailboxes(source), None)
        return "it is an export of Google with a mailbox" if found else ""
    labelled = is_mbox(source) and _LABELS.search(source.beginning)
    return "its mails have labels of Gmail" if labelled else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user: mails that are labelled as sent."""
    boxes = [MboxBox(file) for file in (_mailboxes(source) if source.is_folder else [source])]
    yield from read_boxes(boxes, options.me, str(source))


def _mailboxes(source: Source) -> Iterator[Source]:
    export = source if source.name == "Takeout" else source.child("Takeout")
    if export is not None:
        yield from (file for file in export.files() if file.suffix == ".mbox" and is_mbox(file))
