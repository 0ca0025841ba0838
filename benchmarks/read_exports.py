"""What it costs to read the exports of chats: processor time, and the peak of memory.

For each format an export with invented messages is written into a temporary folder, and read in a
process of its own: by its reader alone, without the rules that choose among the texts, which
select_texts.py measures. Prints a table for docs/history.md.

    python benchmarks/read_exports.py --megabytes 100
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

START = datetime(2016, 1, 1, tzinfo=timezone.utc)
WORDS = ("tea", "cake", "train", "late", "“quoted”", "café", "😀", "window", "number", "there")


def main() -> None:
    """Print one line an export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="of each export")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    print("| export | size, MB | texts | processor time, s | peak memory, MB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            path = Path(folder) / "export"
            with path.open("w", encoding="utf-8") as file:
                for piece in write(arguments.megabytes * 1_000_000):
                    file.write(piece)
            command = [sys.executable, __file__, "--read", str(path)]
            cost = subprocess.run(  # noqa: S603
                command, check=True, capture_output=True, text=True
            ).stdout
            print(f"| {name} | {path.stat().st_size / 1e6:.0f} | {cost.strip()} |", flush=True)


def read(path: Path) -> None:
    """Read an export piece by piece, and print what it took."""
    import resource

    from steerx_edge.history.readers import READERS
    from steerx_edge.history.readers.source import Options, Source
    from steerx_edge.history.readers.texts import Text

    began = time.process_time()
    source = Source(path)
    reader = next(each for each in READERS if each.recognize(source))
    found = reader.read(source, Options(me=("Kim",)))
    n_texts = sum(isinstance(each, Text) for each in found)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{n_texts} | {seconds:.1f} | {peak:.0f}")


def _messages(n_bytes: int, overhead: int) -> Iterator[tuple[int, bool, str, datetime]]:
    """Number, whether it is one's own, text and time, until the export is as large as it should."""
    chance = random.Random(1)  # noqa: S311
    written = number = 0
    while written < n_bytes:
        text = " ".join(chance.choices(WORDS, k=chance.randint(3, 30)))
        yield number, number % 2 == 1, text, START + timedelta(minutes=7 * number)
        number += 1
        written += len(text.encode()) + overhead


def _whatsapp(n_bytes: int) -> Iterator[str]:
    for _, own, text, written in _messages(n_bytes, 25):
        yield f"{written:%d.%m.%y, %H:%M} - {'Kim' if own else 'Ana'}: {text}\n"


def _signal(n_bytes: int) -> Iterator[str]:
    yield '{"version":"1","backupTimeMs":"1"}\n{"account":{}}\n{"recipient":{"id":"1","self":{}}}\n'
    yield '{"recipient":{"id":"2","contact":{"profileGivenName":"Ana"}}}\n'
    yield '{"chat":{"id":"5","recipientId":"2"}}\n'
    for _, own, text, written in _messages(n_bytes, 180):
        item: dict[str, Any] = {
            "chatId": "5",
            "authorId": "1" if own else "2",
            "dateSent": str(int(1000 * written.timestamp())),
            "outgoing" if own else "incoming": {},
            "standardMessage": {"text": {"body": text}},
        }
        yield json.dumps({"chatItem": item}, ensure_ascii=False) + "\n"


def _telegram(n_bytes: int) -> Iterator[str]:
    yield '{"name":"Ana","type":"personal_chat","id":7,"messages":[{"type":"service"}'
    for number, own, text, written in _messages(n_bytes, 220):
        message = {
            "id": number,
            "type": "message",
            "date": written.isoformat(),
            "date_unixtime": str(int(written.timestamp())),
            "from": "Kim" if own else "Ana",
            "from_id": "user9" if own else "user7",
            "text": text,
            "text_entities": [],
        }
        yield ",\n" + json.dumps(message, ensure_ascii=False)
    yield "]}"


def _chatgpt(n_bytes: int) -> Iterator[str]:
    mapping: dict[str, Any] = {}
    separator = "["
    for number, own, text, written in _messages(n_bytes, 320):
        message = {
            "author": {"role": "user" if own else "assistant", "metadata": {}},
            "create_time": written.timestamp(),
            "content": {"content_type": "text", "parts": [text]},
            "metadata": {"model_slug": "a-model", "message_type": None},
        }
        parent = str(number - 1) if mapping else None
        mapping[str(number)] = {"id": str(number), "message": message, "parent": parent}
        if len(mapping) == 20:
            conversation = {"title": "Tea", "mapping": mapping, "current_node": str(number)}
            yield separator + json.dumps(conversation)
            mapping, separator = {}, ",\n"
    yield "]"


WRITERS: dict[str, Callable[[int], Iterator[str]]] = {
    "WhatsApp": _whatsapp,
    "Signal": _signal,
    "Telegram": _telegram,
    "ChatGPT": _chatgpt,
}

if __name__ == "__main__":
    main()
