"""The prefix of a steered Llama: texts of the user that its prompts begin with, evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from steerx_edge.errors import ModelError, ProfileError
from steerx_edge.history.retrieval import GroupRetriever
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.kept_prefix import KeptPrefixes, made_by
from steerx_edge.llamacpp.models import identify
from steerx_edge.llamacpp.prompts import Message, PromptFormat, messages_for
from steerx_edge.profile.prefix_file import Beginning, Prefix, prefix_path

if TYPE_CHECKING:
    import os

    from steerx_edge.history.item import HistoryItem
    from steerx_edge.llamacpp.compat import Llama
    from steerx_edge.profile import Entry


class LivePrefix:
    """Puts the texts of a prefix before chats, and their KV cells in the context.

    Args:
        llama: the model.
        prefix: for this model.
        profile: where the prefix was loaded from: if its cells must be computed anew, they are
            saved there, unless the file was removed or replaced meanwhile. None saves nothing.

    Attributes:
        rolls_back: as of `KeptPrefixes`.

    Raises:
        ProfileError: the prefix does not fit the context.
    """

    def __init__(
        self, llama: Llama, prefix: Prefix, profile: str | os.PathLike[str] | None = None
    ) -> None:
        self._prefix, self._profile = prefix, profile
        self._file = None if profile is None else _identity(profile, prefix)
        self._groups = GroupRetriever([each.items for each in prefix.beginnings])
        self._format = PromptFormat(llama)
        self._made_by = made_by(llama)
        self._kept = KeptPrefixes(llama)
        self.rolls_back = self._kept.rolls_back
        self._tokens = [self._format.beginning(_turns(each.items)) for each in prefix.beginnings]
        n_tokens, n_ctx = max(map(len, self._tokens)), compat.most_tokens(llama)
        if n_tokens >= n_ctx:
            where = "" if profile is None else f"{profile}: "
            raise ProfileError(
                f"{where}the prefix has {n_tokens} tokens and the context {n_ctx}: raise it, or "
                "learn a shorter prefix"
            )
        found = [each.tokens.tolist() for each in prefix.beginnings]
        is_valid = self._tokens == found and self._made_by == prefix.made_by
        self._is_saved = is_valid
        for tokens, beginning in zip(self._tokens, prefix.beginnings, strict=True):
            self._kept.stay(tokens, beginning.state if is_valid else None)

    @classmethod
    def load(cls, llama: Llama, profile: str | os.PathLike[str]) -> LivePrefix:
        """The prefix next to a profile.

        Raises:
            ProfileError: there is none for this model, or it cannot be used.
        """
        found = cls.find(llama, profile)
        if found is None:
            raise ProfileError(
                f"There is no prefix next to '{profile}' for {identify(llama)}. Learn one with "
                "--prefix."
            )
        return found

    @classmethod
    def find(
        cls, llama: Llama, profile: str | os.PathLike[str], *, renew: bool = True
    ) -> LivePrefix | None:
        """The prefix next to a profile; None where there is none for this model.

        Args:
            llama: the model.
            profile: path of the profile.
            renew: whether the file is saved anew if its cells must be computed anew.

        Raises:
            ProfileError: it cannot be used.
        """
        prefix = Prefix.load(profile, identify(llama).fingerprint)
        return None if prefix is None else cls(llama, prefix, profile if renew else None)

    @classmethod
    def usable(
        cls,
        llama: Llama,
        entry: Entry,
        profile: str | os.PathLike[str],
        *,
        renew: bool = True,
    ) -> tuple[LivePrefix | None, str]:
        """The prefix to begin with if nothing else is asked for.

        Args:
            llama: the model.
            entry: of the profile, for this model.
            profile: where the profile was loaded from.
            renew: as of `find`.

        Returns:
            The prefix, and "". Or None, and a sentence on why it is not used, or "" if there is
            none.
        """
        try:
            found = cls.find(llama, profile, renew=renew)
        except ProfileError as error:
            return None, f"The prefix is not used ({error})."
        if found and entry.positions == "all":
            return None, "The prefix is not used, as this profile steers the prompt, too."
        return found, ""

    def items_for(self, request: str) -> Sequence[HistoryItem]:
        """The texts, and their requests, that a chat begins with whose first request is this."""
        return self._groups.retrieve(request)

    def placed(self, messages: Sequence[Any]) -> list[Any]:
        """A chat with texts of the prefix as earlier turns, after its system message."""
        n_system = next(
            (i for i, message in enumerate(messages) if message["role"] != "system"), len(messages)
        )
        system = list(messages[:n_system])
        first = messages[n_system].get("content") if n_system < len(messages) else ""
        turns = _turns(self.items_for(first if isinstance(first, str) else ""))
        if all(isinstance(message["content"], str) for message in system):
            self._add(system, turns)
        return [*system, *turns, *messages[n_system:]]

    def add(self, system: Sequence[Message]) -> None:
        """Prepare for prompts that begin with system messages: they are another beginning."""
        for beginning in self._prefix.beginnings:
            self._add(system, _turns(beginning.items))

    def _add(self, system: Sequence[Message], turns: Sequence[Message]) -> None:
        if system:
            self._kept.add(self._format.beginning([*system, *turns]))

    def begin(self, prompt: Sequence[int]) -> int:
        """Let the context begin with the prefix, if the prompt does; see `KeptPrefixes.begin`.

        Raises:
            ModelError: llama.cpp fails.
        """
        if (
            not self._is_saved
            and self._profile is not None
            and any(list(prompt[: len(tokens)]) == tokens for tokens in self._tokens)
        ):
            self._is_saved = True
            with suppress(ProfileError, ModelError):  # the next time it takes as long again
                self._renew(self._profile)
        return self._kept.begin(prompt)

    def _renew(self, profile: str | os.PathLike[str]) -> None:
        """Save the cells as this context computes them, if the file is the one they replace."""
        beginnings = tuple(
            Beginning(each.items, np.array(tokens, np.int32), self._kept.evaluated(tokens))
            for each, tokens in zip(self._prefix.beginnings, self._tokens, strict=True)
        )
        renewed = replace(self._prefix, beginnings=beginnings, made_by=self._made_by)
        if self._file is not None and self._file == _identity(profile, renewed):
            renewed.save(profile)


def _identity(profile: str | os.PathLike[str], prefix: Prefix) -> tuple[int, ...] | None:
    """What tells the file of a prefix from another of its name; None where there is none."""
    try:
        status = prefix_path(profile, prefix.fingerprint).stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _turns(items: Sequence[HistoryItem]) -> list[Message]:
    return messages_for("", history=items)[:-1]
