"""Thunderbird's profile: mailboxes without a suffix, each with an index `.msf`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from steerx_edge.errors import HistoryError
from steerx_edge.history.readers.mailboxes import read_boxes
from steerx_edge.history.readers.mbox import MboxBox, is_mbox
from steerx_edge.history.readers.source import Options, Source
from steerx_edge.history.readers.texts import Found

NAME = "a profile of Thunderbird"

_STORES = ("Mail", "ImapMail")
_IDENTITY = re.compile(r'^user_pref\("mail\.identity\.\w+\.useremail", "([^"]+)"\);', re.MULTILINE)
_DEEPEST = 4


def recognize(source: Source) -> str:
    """Return what shows that it is a profile, a folder of profiles, or a part of one."""
    if not source.is_folder:
        return ""
    if _profiles(source):
        return "it holds 'prefs.js' and mail"
    return "its mailboxes have indexes '.msf'" if _has_index(source) else ""


def read(source: Source, options: Options) -> Found:
    """Yield the texts of the user in all mailboxes; an identity of the profile is the user."""
    profiles = _profiles(source)
    stores = [store for each in profiles for name in _STORES if (store := each.child(name))]
    boxes = [
        MboxBox(file, str(file).removeprefix(str(store)).strip("/"))
        for store in stores or [source]
        for file in store.files()
        if file.suffix not in {".msf", ".dat", ".html"} and is_mbox(file)
    ]
    if not boxes:
        raise HistoryError(f"{source} holds no mailbox of Thunderbird with a mail in it.")
    likely = [address for each in profiles for address in _identities(each)]
    yield from read_boxes(boxes, options.me, str(source), likely=likely)


def _profiles(source: Source) -> list[Source]:
    """The folder itself, or those below it: `profiles.ini` lies beside them, or above."""
    folders = [source]
    if source.child("profiles.ini"):
        above = [source, *filter(None, [source.child("Profiles")])]
        folders = [each for folder in above for each in folder.children() if each.is_folder]
    return [each for each in folders if each.child("prefs.js") and any(map(each.child, _STORES))]


def _identities(profile: Source) -> Iterator[str]:
    if preferences := profile.child("prefs.js"):
        yield from _IDENTITY.findall(preferences.rough_text)


def _has_index(source: Source, depth: int = 0) -> bool:
    """Whether a folder, or one below it, holds a mailbox with its index."""
    children = {child.name: child for child in source.children()}
    if any(name.endswith(".msf") and name[:-4] in children for name in children):
        return True
    below = (child for child in children.values() if child.path.is_dir())
    return depth < _DEEPEST and any(_has_index(each, depth + 1) for each in below)
