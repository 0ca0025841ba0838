"""Build prompts from a request, in-context texts and a description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from steerx_edge.errors import ModelError

if TYPE_CHECKING:
    from llama_cpp import Llama

NO_REQUEST = "Write a short text."
"""The request of a text without one, in chat models."""


class Exchange(Protocol):
    """A request and the text that answers it, such as an item of a history."""

    @property
    def request(self) -> str:
        """The request; may be empty."""

    @property
    def response(self) -> str:
        """The text."""


class _Turn(TypedDict):
    role: str
    content: str


class Message(_Turn, total=False):
    """One turn of a chat; `plain` is its content for models without a chat template."""

    plain: str


def messages_for(
    request: str,
    *,
    history: Sequence[Exchange] = (),
    description: str = "",
    system: str = "",
) -> list[Message]:
    """A chat that ends with `request`, after the in-context texts as earlier turns.

    Args:
        request: what is to be answered; may be empty.
        history: in-context texts and their requests, the most relevant last.
        description: how the user writes, in the second person; put before the request.
        system: system message.
    """
    messages = [Message(role="system", content=system)] if system else []
    for item in history:
        messages.append(_asking(item.request))
        messages.append(Message(role="assistant", content=item.response))
    return [*messages, _asking(request, description)]


def _asking(request: str, description: str = "") -> Message:
    parts = [part for part in (description, request or NO_REQUEST) if part]
    message = Message(role="user", content="\n\n".join(parts))
    if not request:
        message["plain"] = description
    return message


_MERGED = 2
"""Tokens before a text that a tokenizer may merge with its beginning."""


class PromptFormat:
    """The model's own chat template; a plain one for base models, which have none.

    The plain template writes the turns one after the other, with empty lines between, as they would
    stand in a collection of texts.
    """

    def __init__(self, llama: Llama) -> None:
        from steerx_edge.llamacpp import compat  # which loads llama.cpp

        self._llama = llama
        template = llama.metadata.get("tokenizer.chat_template")
        self._formatter: Any = None
        if template:
            self._formatter = compat.chat_formatter(
                template,
                eos=_token_text(llama, llama.token_eos()),
                bos=_token_text(llama, llama.token_bos()),
            )

    @property
    def is_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self._formatter is not None

    def beginning(self, messages: Sequence[Message]) -> list[int]:
        """Token ids that every prompt begins with whose messages begin with these.

        They end with a control token where there is one, since no content changes the tokens
        before it.

        Raises:
            ModelError: the model's template does not take these messages.
        """
        one, other = (self.tokens([*messages, _asking(request)]) for request in ("a", "0"))
        n_common = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        ends = [i + 1 for i in range(n_common) if _is_control(self._llama, one[i])]
        return one[: max(ends, default=max(0, n_common - _MERGED))]

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt that ends where the answer begins; never empty.

        Raises:
            ModelError: the model's template does not take these messages.
        """
        if self._formatter is None:
            turns = (message.get("plain", message["content"]) for message in messages)
            text = "".join(f"{turn}\n\n" for turn in turns if turn)
            # Two tokens at least: the first one's residual row is unlike all others.
            tokens = self._llama.tokenize(text.encode(), add_bos=True, special=False)
            while len(tokens) < 2:
                tokens += self._llama.tokenize(b"\n", add_bos=False, special=False)
            return tokens
        try:
            prompt = self._formatter(messages=list(messages)).prompt
        except Exception as error:  # a template is the model author's program
            raise ModelError(f"The model's chat template failed: {error}.") from error
        tokens = self._llama.tokenize(prompt.encode(), add_bos=False, special=True)
        if not tokens:
            raise ModelError("The model's chat template gives an empty prompt.")
        return tokens


def _token_text(llama: Llama, token: int) -> str:
    import llama_cpp

    if token == llama_cpp.LLAMA_TOKEN_NULL:
        return ""
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    text: str = llama_cpp.llama_vocab_get_text(vocab, token).decode()
    return text
