"""What it takes to read a mailbox (mbox) of a given size: time, and peak memory.

The mailbox is made in a temporary folder, of made-up mails: a third is the user's, most of these
answer another one, half of all have HTML beside plain text, and some have an attachment.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import random
import re
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path

from steerx_edge.history.opening import open_history
from steerx_edge.history.readers.texts import Dropped

ME = "Mo Adler <mo@example.org>"
WORDS = re.findall(
    r"\w+",
    "the tea is on a table by window and we will see if it rains before noon so bring your coat "
    "please tell Ana that her parcel came today thanks again for all of this I think it works",
)
ATTACHED = 0.1  # of the mails
LARGEST = 400_000  # bytes of an attachment


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, nargs="+", default=[100], help="sizes, in MB")
    sizes = parser.parse_args().mb
    print(f"before: {_peak():.0f} MB resident")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "All mail"
            mails = _write(path, size * 1_000_000)
            begin, worked = time.perf_counter(), time.process_time()
            counts: Counter[str] = Counter(
                each.reason if isinstance(each, Dropped) else "kept"
                for each in open_history(path, me="mo@example.org").found
            )
            seconds, worked = time.perf_counter() - begin, time.process_time() - worked
        found = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        print(
            f"{size} MB, {mails} mails: {seconds:.1f} s, {worked:.1f} s of one core, "
            f"peak {_peak():.0f} MB resident ({found})"
        )


def _peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _write(path: Path, size: int) -> int:
    """Write mails up to a size in bytes, and return their number."""
    generator = random.Random(1)  # noqa: S311
    with path.open("wb") as file:
        for number in itertools.count(1):
            file.write(_mail(generator, number))
            if file.tell() >= size:
                return number
    raise AssertionError


def _mail(generator: random.Random, number: int) -> bytes:
    mine = generator.random() < 1 / 3
    other = f"Person {number % 50} <person{number % 50}@example.org>"
    headers = [
        "From mo@example.org Mon Jan  5 10:00:00 2026",
        *(f"Received: from host{hop}.example.org by host{hop + 1}.example.org" for hop in range(4)),
        f"From: {ME if mine else other}",
        f"To: {other if mine else ME}",
        f"Subject: {'Re: ' if mine else ''}{_sentence(generator)[:40]}",
        "Date: Mon, 5 Jan 2026 10:00:00 +0000",
        f"Message-ID: <{number}@example.org>",
        *([f"In-Reply-To: <{number - 1}@example.org>"] if mine else []),
        "MIME-Version: 1.0",
        'Content-Type: multipart/mixed; boundary="a"',
    ]
    text = "\n\n".join(_sentence(generator) for _ in range(generator.randrange(1, 9)))
    quoted = "\n".join(f"> {_sentence(generator)}" for _ in range(generator.randrange(12)))
    if mine and quoted:
        text += f"\n\nOn Sun, Jan 4, 2026 at 9:00 AM {other} wrote:\n{quoted}"
    body = f"--a\n{_alternative(text) if number % 2 else _plain(text)}"
    if generator.random() < ATTACHED:
        data = generator.randbytes(generator.randrange(LARGEST))
        attached = base64.encodebytes(data).decode("ascii")
        body += f"--a\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n{attached}\n"
    return "\n".join([*headers, "", body, "--a--", "", ""]).encode()


def _plain(text: str) -> str:
    return f"Content-Type: text/plain; charset=utf-8\n\n{text}\n\n"


def _alternative(text: str) -> str:
    html = "".join(
        f"<div>{line or '<br>'}</div>\n" for line in text.replace(">", "&gt;").split("\n")
    )
    return (
        f'Content-Type: multipart/alternative; boundary="b"\n\n--b\n{_plain(text)}--b\n'
        f"Content-Type: text/html; charset=utf-8\n\n<html><body>{html}</body></html>\n--b--\n\n"
    )


def _sentence(generator: random.Random) -> str:
    words = generator.choices(WORDS, k=generator.randrange(4, 25))
    return f"{' '.join(words).capitalize()}."


if __name__ == "__main__":
    main()
