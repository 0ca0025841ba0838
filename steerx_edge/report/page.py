"""Self-contained HTML pages: they load nothing, and what they show is only text."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from steerx_edge.profile.files import about, replacing
from steerx_edge.report.tables import Table
from steerx_edge.report.visible import visible


def escaped(text: str) -> str:
    """Write a text as HTML, in which it is only text."""
    return escape(visible(text))


def html_table(table: Table) -> str:
    """Write a table; its first column holds the names of the rows."""
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<h2>{escaped(table.title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def embedded(data: object) -> str:
    """Write data as a JSON block with the id `data`, for the script of the page.

    No text in it can end the block: `<` is written as an escape.
    """
    written = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    written = written.replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{written}</script>'


def asset(name: str) -> str:
    """A style sheet or script of this package."""
    return (files("steerx_edge.report") / "assets" / name).read_text("utf-8")


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Put a page together.

    The browser is told to load nothing, and to run and apply only this script and these styles.

    Args:
        title: as text.
        body: as HTML.
        style: CSS in addition to that of all pages.
        script: JavaScript, run when the body is there; no script by default.
    """
    style = asset("page.css") + style
    scripts = _source(script) if script else "'none'"
    policy = f"default-src 'none'; style-src {_source(style)}; script-src {scripts}"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>{body}"
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>\n"
    )


def save_private(path: str | os.PathLike[str], text: str) -> None:
    """Write a file that only its owner can read (mode 0600), all of it or nothing.

    Raises:
        ProfileError: it cannot be written.
    """
    with about(path, "written"):
        target = Path(os.path.realpath(path))
        with suppress(FileNotFoundError):
            if target.is_file():
                target.chmod(0o600)  # before: the new file gets the mode of the old one
        with replacing(target) as (temporary,):
            temporary.write_text(text, "utf-8")


def _source(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
