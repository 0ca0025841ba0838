"""What is said while a profile is learned, and what was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from steerx_edge.profile.prefix_file import prefix_path
from steerx_edge.report.profile_view import by_request, plural

if TYPE_CHECKING:
    from steerx_edge.profile import Entry, Gain, Prefix
    from steerx_edge.report.terminal import PlainConsole

_SHOWN_WORDS = 12
_ORIGINS = {"model": "by the model", "statistics": "from measured style", "user": "by you"}


def beginning(model: str, n_used: int, n_given: int, n_most: int | None, seconds: float) -> str:
    """Say what is learned from, and how long it will take.

    Args:
        model: its name.
        n_used: texts that are learned from.
        n_given: texts of the history.
        n_most: the last texts that were asked for; None for all.
        seconds: how long it will take.
    """
    lines = [f"Learning from {n_used} of {n_given} texts with {model}."]
    if n_used < min(n_given, n_most or n_given):
        lines.append("Skipped duplicate texts.")
    return "\n".join([*lines, duration(seconds)])


def adding(output: str, model: str, n_new: int, n_known: int, seconds: float) -> str:
    """Say how many texts are added to a profile, and how long it will take.

    Args:
        output: the file of the profile.
        model: its name.
        n_new: texts that are read.
        n_known: texts that were read before.
        seconds: how long it will take.
    """
    return (
        f"Adding {n_new} new texts to {output} with {model}; {n_known} were read before.\n"
        f"{duration(seconds)}"
    )


def duration(seconds: float) -> str:
    """Say how long something will take."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "Estimated time: less than a minute."
    return f"Estimated time: {minutes} minute{'s' if minutes > 1 else ''}."


def sample_saved(output: str, n_sample: int, n_left: int) -> str:
    """Say that the profile of the sample can be used."""
    return (
        f"Saved {output}, learned from a sample of {n_sample} texts; reading {n_left} more. Press "
        "Ctrl-C to stop; rerun the same command to resume."
    )


def sample_not_saved(output: str, n_sample: int, n_left: int, n_kept: int) -> str:
    """Say that the file keeps a profile learned from more texts, n_kept, than the sample."""
    return (
        f"Learned from a sample of {n_sample} texts; reading {n_left} more. Until then {output} "
        f"keeps the profile learned from {n_kept} texts. If interrupted, rerun the same command to "
        "resume."
    )


def not_saved(output: str, n_read: int, n_wanted: int, n_kept: int) -> str:
    """Say that time was up, and that the file keeps a profile learned from more texts, n_kept."""
    return (
        f"Time is up: read {n_read} of {n_wanted} texts. {output} keeps the profile learned from "
        f"{n_kept} texts; rerun the same command to read the rest."
    )


def prefix_saved(profile_path: str, prefix: Prefix | None, n_tokens: int) -> str:
    """Say what is in the prefix next to a profile, or that no text fits one of n_tokens tokens."""
    if prefix is None:
        return f"No text is short enough for a prefix of {n_tokens} tokens: none was saved."
    held = by_request(
        f"{plural(len(each.items), 'text')} in {len(each.tokens)} tokens"
        for each in prefix.beginnings
    )
    return (
        f"Saved {prefix_path(profile_path, prefix.fingerprint)}: {held}, {prefix.size}. Keep it as "
        "private as the texts."
    )


def print_learned(entry: Entry, output: str, n_wanted: int, console: PlainConsole) -> None:
    """Print what was learned, and that it was saved.

    Args:
        entry: what was learned.
        output: the file of the profile.
        n_wanted: how many texts were to be read.
        console: where it is printed.
    """
    counts = entry.counts
    console.print(_words(entry))
    console.print(f"\nDescription ({_ORIGINS[entry.description.origin]}):")
    console.print(entry.description.text)
    console.print(
        f"\n{counts['anchors']} of {counts['tokens']} tokens in {counts['items']} texts are "
        f"anchors: your other texts make them much more probable.\n{summary(entry)}"
    )
    if counts["items"] < n_wanted:
        console.print(f"Time is up: read {counts['items']} of {n_wanted} texts.")
    if entry.memory and entry.memory.level != "shared":
        console.print(
            "The memory file lies beside the profile. Your texts can be read back from it with the "
            "model: keep it as private as the texts."
        )
    console.print(f"Saved {output}.")


def _words(entry: Entry) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("word")
    for name in ("effect (nats/text)", "95% interval", "texts"):
        table.add_column(name, justify="right")
    for word in entry.words[:_SHOWN_WORDS]:
        table.add_row(
            word.word,
            f"{word.effect:+.2f}",
            f"{word.low:+.2f} to {word.high:+.2f}",
            str(word.items),
        )
    return table


def summary(entry: Entry) -> str:
    """Return what the profile adds to the model, and the measured gain; a line for each."""
    parts = [
        f"direction at layer {layer} ({strength:g} of the residual norm)"
        for layer, strength in zip(entry.layers, entry.strengths, strict=True)
        if strength
    ]
    if entry.logit_bias and (bias := entry.logit_bias.at()):
        parts.append(f"logit bias on {len(bias)} tokens")
    if entry.memory and entry.memory.strength:
        parts.append(
            f"memory of {entry.memory.rows} tokens (level {entry.memory.level}, strength "
            f"{entry.memory.strength:g})"
        )
    lines = [f"Steering: {'; '.join(parts) or 'none, all strengths are 0'}."]
    if parts and entry.gate:
        lines.append("Requests unlike those of your texts are answered without steering.")
    if entry.gain is None:
        return "\n".join(lines)
    measured = f"measured on {entry.gain.items} held-out texts"
    if not parts:
        lines.insert(
            0,
            f"No reliable preference found: the best setting gained {shown(entry.gain)}, "
            f"{measured}.",
        )
        return "\n".join(lines)
    lines.append(f"Expected gain: {shown(entry.gain)}, {measured}.")
    if entry.with_history:
        gain = entry.with_history.gain
        lines.append(
            f"With your texts in the prompt (--history), gain over the prompt alone: {shown(gain)}"
            f"{'.' if gain.low > 0 else ', which is not reliable, so steering is off then.'}"
        )
    return "\n".join(lines)


def shown(gain: Gain) -> str:
    """Return a gain with its interval."""
    return f"{gain.mean:+.3f} nats/token (95% interval {gain.low:+.3f} to {gain.high:+.3f})"
