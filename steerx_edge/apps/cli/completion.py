"""What a shell completes: names of models, and files."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem


def complete_models(
    _context: click.Context, _option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of models that are found, and files."""
    from steerx_edge.llamacpp.model_search import search

    names = [each.name for each in search().models if each.name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def complete_files(
    _context: click.Context, _option: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files, by the shell's own completion."""
    return [CompletionItem(incomplete, type="file")]
