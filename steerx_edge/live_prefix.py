"""The prefix of a steered Llama: texts of the user that its prompts begin with, evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from steerx_edge.errors import ProfileError
from steerx_edge.llamacpp.kept_prefix import KeptPrefixes, made_by
from steerx_edge.llamacpp.models import identify
from steerx_edge.llamacpp.prompts import Message, PromptFormat, messages_for
from steerx_edge.profile.prefix_file import Prefix

if TYPE_CHECKING:
    import os

    from steerx_edge.llamacpp.compat import Llama


class LivePrefix:
    """Puts the texts of a prefix before chats, and their KV cells in the context.

    Args:
        llama: the model.
        prefix: for this model.
        profile: where the prefix was loaded from: if its cells must be computed anew, they are
            saved there. None saves nothing.

    Attributes:
        items: the texts and their requests.
        rolls_back: as of `KeptPrefixes`.
    """

    def __init__(
        self, llama: Llama, prefix: Prefix, profile: str | os.PathLike[str] | None = None
    ) -> None:
        self.items = prefix.items
        self._prefix, self._profile = prefix, profile
        self._turns = messages_for("", history=prefix.items)[:-1]
        self._format = PromptFormat(llama)
        self._made_by = made_by(llama)
        self._kept = KeptPrefixes(llama)
        self.rolls_back = self._kept.rolls_back
        self._tokens = self._format.beginning(self._turns)
        is_valid = self._tokens == prefix.tokens.tolist() and self._made_by == prefix.made_by
        self._is_saved = is_valid
        self._kept.add(self._tokens, prefix.state if is_valid else None)

    @classmethod
    def load(cls, llama: Llama, profile: str | os.PathLike[str]) -> LivePrefix:
        """The prefix next to a profile.

        Raises:
            ProfileError: there is none for this model, or it cannot be used.
        """
        model = identify(llama)
        prefix = Prefix.load(profile, model.fingerprint)
        if prefix is None:
            raise ProfileError(
                f"There is no prefix next to '{profile}' for {model}. Learn one with --prefix."
            )
        return cls(llama, prefix, profile)

    def placed(self, messages: Sequence[Any]) -> list[Any]:
        """A chat with the texts of the prefix as earlier turns, after its system message."""
        n_system = next(
            (i for i, message in enumerate(messages) if message["role"] != "system"), len(messages)
        )
        system = list(messages[:n_system])
        if all(isinstance(message["content"], str) for message in system):
            self.add(system)
        return [*system, *self._turns, *messages[n_system:]]

    def add(self, system: Sequence[Message]) -> None:
        """Prepare for prompts that begin with system messages: they are another beginning."""
        if system:
            self._kept.add(self._format.beginning([*system, *self._turns]))

    def begin(self, prompt: Sequence[int]) -> int:
        """Let the context begin with the prefix, if the prompt does; see `KeptPrefixes.begin`.

        Raises:
            ModelError: llama.cpp fails.
        """
        n_tokens = self._kept.begin(prompt)
        state = self._kept.state(self._tokens)
        if not self._is_saved and self._profile is not None and state is not None:
            self._is_saved = True
            tokens = np.array(self._tokens, np.int32)
            renewed = replace(self._prefix, tokens=tokens, made_by=self._made_by, state=state)
            with suppress(ProfileError):  # the next time it takes as long again
                renewed.save(self._profile)
        return n_tokens
