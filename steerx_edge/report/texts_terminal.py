"""The heat map of a history in the terminal, with colours where it has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from steerx_edge.report.profile_view import plural
from steerx_edge.report.terminal import PlainConsole
from steerx_edge.report.texts_facts import NO_MEMORY, said_of
from steerx_edge.report.visible import visible

STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Effects, in nats, from which on a word is shaded more strongly."""

MARKED = 1.0
"""Effect from which on a word is followed by its effect, in nats; as that of an anchor token."""

_MORE = ("#dbe9ff", "#b9d4ff", "#8fbcff", "#62a0ff", "#3d86f5")
_LESS = ("#ffead9", "#ffd3ad", "#ffb97d", "#ff9d4d", "#f08024")


def step_of(effect: float) -> int:
    """How strongly a word is shaded: 0 to 5, negative for a negative effect."""
    step = sum(abs(effect) >= least for least in STEPS)
    return step if effect > 0 else -step


def print_texts(facts: Mapping[str, Any], console: PlainConsole) -> None:
    """Print each text of `texts_facts`; words of at least 1 nat are followed by their effect."""
    console.print(
        f"Effect of each word in nats, where it is at least {MARKED:g}: how much more probable "
        f"your other texts make it. Model: {facts['model']}.",
        soft_wrap=True,
    )
    for text in facts["texts"]:
        console.print(f"\nText {text['number']}", style="bold", soft_wrap=True)
        console.print(about_text(text), style="dim", soft_wrap=True)
        if text["request"]:
            console.print(f"Request: {text['request']}", style="dim", soft_wrap=True)
        console.print(_shaded(text), soft_wrap=True)


def about_text(text: Mapping[str, Any]) -> str:
    """Return a line on one of `texts_facts`: effect, gain, and what the memory holds."""
    parts = [plural(text["tokens"], "token"), f"effect {text['effect']:+.2f} nats/token"]
    if text["gain"] is not None:
        parts.append(f"gain {text['gain']:+.2f} nats/token")
    if text["memory"] is None:
        return f"{', '.join(parts)}; {NO_MEMORY}."
    found = [f"{n:,} {said_of(text, fate)}" for fate, n in text["memory"].items() if n]
    return f"{'; '.join([', '.join(parts), *found])}."


def _shaded(text: Mapping[str, Any]) -> Text:
    line = Text()
    for word in text["words"]:
        shown = visible(word["text"])
        bare = shown.lstrip()
        line.append(shown[: len(shown) - len(bare)])
        effect = word["effect"]
        mark = f"[{effect:+.1f}]" if word["word"] and abs(effect) >= MARKED else ""
        line.append(bare, style=_style(effect) if word["word"] else "")
        line.append(mark, style="bold" if mark else "")
    return line


def _style(effect: float) -> str:
    step = step_of(effect)
    if not step:
        return ""
    return f"black on {(_MORE if step > 0 else _LESS)[abs(step) - 1]}"
