"""Every Python snippet in the pages is run, those of a page one after the other.

The names `sx` and `llama` are defined, and the files that the snippets name exist.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import Llama

import steerx_edge
from docs.tools.blocks import PAGES, blocks
from models import make_tiny_llama

SNIPPETS = {page: [block for block in blocks(page) if block.language == "python"] for page in PAGES}
NEEDS_DEPTH = "docs/hooks.md"  # reads layer 20
N_CTX = 768


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, snippets in SNIPPETS.items() if snippets])
def test_its_snippets_run(page: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_histories(work)
    if page == NEEDS_DEPTH:
        make_tiny_llama(work / "model.gguf", n_layer=24)
    initialize = Llama.__init__

    def small(llama: Llama, path: str, **options: Any) -> None:
        """Let no snippet fill a large context with what a tiny model has to say."""
        initialize(llama, path, **(options | {"n_ctx": N_CTX, "n_threads": 1, "verbose": False}))

    monkeypatch.setattr(Llama, "__init__", small)
    llama = Llama("model.gguf")
    names: dict[str, Any] = {"sx": steerx_edge, "llama": llama}
    for block in SNIPPETS[page]:
        exec(compile(block.text, f"{page}:{block.line}", "exec"), names)  # noqa: S102
    for each in (llama, names["llama"], getattr(names.get("engine"), "llama", llama)):
        each.close()


def write_histories(folder: Path) -> None:
    """The files of other people's texts that the pages name."""
    sent = (folder / "sent.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["response"].splitlines()[0] for line in sent]
    wines = [{"title": text, "points": 90, "note": text} for text in texts]
    reviews = {"user_id": "az000", "profile": [{"text": text} for text in texts[:3]]}
    authors = [
        {
            "user_id": f"hp{author:03}",
            "profile": [
                {"prompt": f"Write number {i}.", "response": f"{text} {i} {author}"}
                for i, text in enumerate(texts[:8])
            ],
            "queries": [{"input": "Write number 9.", "output": texts[9]}],
        }
        for author in range(2)
    ]
    for name, rows in (("wine", wines), ("reviews", [reviews]), ("headlines", authors)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
