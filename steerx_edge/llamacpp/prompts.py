"""Build prompts from a request, in-context texts and a description."""

from __future__ import annotations

import re
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

_STAND_IN = "73908214650{:06d}"
"""Takes the place of a content while a template is rendered: digits, which no filter changes."""

_STANDS_IN = re.compile(r"73908214650(\d{6})")

_OPEN_THINKING = re.compile(r"<((?:\w+:)?think(?:ing)?)>\s*\Z")


class PromptFormat:
    """The model's own chat template; a plain one for base models, which have none.

    The plain template writes the turns one after the other, with empty lines between, as they would
    stand in a collection of texts.

    What people wrote is text: the template does not see it, and nothing in it becomes a control
    token. With a model that thinks first, the answer begins after an empty thinking block.
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

        They end with a control token where there is one after the first, since no content changes
        the tokens before it.

        Raises:
            ModelError: the model's template does not take these messages.
        """
        one, other = (self.tokens([*messages, _asking(request)]) for request in ("a", "0"))
        n_common = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        ends = [i + 1 for i in range(1, n_common) if _is_control(self._llama, one[i])]
        return one[: max(ends, default=max(0, n_common - _MERGED))]

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt that ends where the answer begins; never empty.

        Raises:
            ModelError: the model's template does not take these messages, or they hold half a
                character.
        """
        if self._formatter is None:
            turns = (message.get("plain", message["content"]) for message in messages)
            text = "".join(f"{turn}\n\n" for turn in turns if turn)
            # Two tokens at least: the first one's residual row is unlike all others.
            tokens = self._llama.tokenize(encoded(text), add_bos=True, special=False)
            while len(tokens) < 2:
                tokens += self._llama.tokenize(b"\n", add_bos=False, special=False)
            return tokens
        contents = [message["content"] for message in messages]
        try:
            prompt = self._formatter(
                messages=[
                    {"role": message["role"], "content": _stand_in(i, message["content"])}
                    for i, message in enumerate(messages)
                ],
                enable_thinking=False,
            ).prompt
        except Exception as error:  # a template is the model author's program
            raise ModelError(f"The model's chat template failed: {error}.") from error
        prompt = _OPEN_THINKING.sub(r"<\1>\n\n</\1>\n\n", prompt)
        if any(map(self._names_control_tokens, contents)):
            tokens = self._tokens_around(prompt, contents)
        else:
            tokens = self._tokenize(_filled(prompt, contents), special=True)
        if not tokens:
            raise ModelError("The model's chat template gives an empty prompt.")
        return tokens

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._llama.tokenize(encoded(text), add_bos=False, special=special)

    def _names_control_tokens(self, text: str) -> bool:
        return self._tokenize(text, special=True) != self._tokenize(text, special=False)

    def _tokens_around(self, prompt: str, contents: Sequence[str]) -> list[int]:
        """Token ids of a rendered template, with contents in which control tokens are text.

        As llama.cpp does, split the prompt at its control tokens and tokenize what lies between.
        """
        tokens: list[int] = []
        between: list[int] = []
        begin = 0
        for token in [*self._tokenize(prompt, special=True), None]:
            if token is not None and not _is_control(self._llama, token):
                between.append(token)
                continue
            mark = "" if token is None else _token_text(self._llama, token)
            end = len(prompt) if token is None else prompt.index(mark, begin)
            text = prompt[begin:end]
            if _STANDS_IN.search(text):
                for trimmed in (text.lstrip(), text.rstrip(), text.strip()):
                    # Around the control tokens of a few models llama.cpp drops white space.
                    if between == self._tokenize(trimmed, special=False):
                        text = trimmed
                between = self._tokenize(_filled(text, contents), special=False)
            tokens += between if token is None else [*between, token]
            between, begin = [], end + len(mark)
        return tokens


def encoded(text: str) -> bytes:
    """A text as llama.cpp takes it, in UTF-8.

    Raises:
        ModelError: the text holds half a character, which no encoding takes.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            f"The text holds a lone surrogate at position {error.start}. Remove it."
        ) from error


def _stand_in(index: int, content: str) -> str:
    """What a template is given for a content; white space stays, since templates trim it."""
    text = content.strip()
    return content.replace(text, _STAND_IN.format(index), 1) if text else content


def _filled(text: str, contents: Sequence[str]) -> str:
    return _STANDS_IN.sub(lambda found: contents[int(found[1])].strip(), text)


def _is_control(llama: Llama, token: int) -> bool:
    import llama_cpp

    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    return bool(llama_cpp.llama_vocab_is_control(vocab, token))


def _token_text(llama: Llama, token: int) -> str:
    import llama_cpp

    if token == llama_cpp.LLAMA_TOKEN_NULL:
        return ""
    vocab = llama_cpp.llama_model_get_vocab(llama.model)
    text: str = llama_cpp.llama_vocab_get_text(vocab, token).decode()
    return text
