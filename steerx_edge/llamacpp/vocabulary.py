"""The vocabulary of a model, without its weights."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp

from steerx_edge.errors import ModelError
from steerx_edge.llamacpp.prompts import encoded


class Vocabulary:
    """The tokens of a model.

    Args:
        model: the address of a llama_model, which is open as long as this is used.
    """

    def __init__(self, model: Any) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)

    def __len__(self) -> int:
        """How many tokens there are."""
        size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        return size

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text: nothing in it is taken for a control token.

        Raises:
            ModelError: the text holds half a character, which no encoding takes.
        """
        data = encoded(text)
        room = len(data) + 8  # a token has a byte at least; some models put a space before it
        tokens = (llama_cpp.llama_token * room)()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), tokens, room, False, False)
        return list(tokens[:n])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; a character may be spread over several.

        Raises:
            ModelError: there is no such token.
        """
        if not 0 <= token < len(self):
            raise ModelError(f"Token {token} is not in the model's vocabulary.")
        for size in (64, 4096):
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
        raise ModelError(f"Token {token} of the model's vocabulary is longer than any text.")

    def pieces(self) -> list[bytes]:
        """The bytes of every token, in the order of their ids."""
        return [self.piece(token) for token in range(len(self))]

    def tokens_of(self, words: Sequence[str]) -> tuple[int, ...]:
        """The tokens that spell words at the beginning of a text or after a space, increasing.

        Where a word is several tokens, single letters among them are left out, as they spell all
        other words too.
        """
        found = {
            token for word in words for text in (word, f" {word}") for token in self.tokenize(text)
        }
        telling = {token for token in found if len(self.piece(token).strip()) > 1}
        return tuple(sorted(telling or found))


@contextmanager
def open_vocabulary(path: Path) -> Iterator[Vocabulary]:
    """Read the vocabulary of a GGUF file, in a fraction of a second.

    Raises:
        ModelError: llama.cpp cannot read it.
    """
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"llama.cpp could not read the vocabulary of '{path}'.")
    try:
        yield Vocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)
