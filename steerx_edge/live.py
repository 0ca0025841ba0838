"""Steer any `llama_cpp.Llama` by a profile: control vector, logit bias, memory.

With positions `generated`, the last prompt token and every generated token are steered, and the
rest of the prompt is not. So a prompt's KV cache is the same under every profile and without one,
and what is generated depends on the prompt alone, not on what was generated before it. The logit
bias is added to the logits that a token is sampled from, and the memory is mixed in, with any
positions. The memory is looked up by the final normed row, which llama.cpp returns with the logits
as the token's embedding; it is requested when a single token is evaluated.

The unsteered row that predicts the first token of an answer decides whether the answer is steered
at all: see the request gate, `steerx_edge.steering.gate`. What the user never wants to be written
is barred in either case.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from steerx_edge.errors import ModelError, ProfileError, SteerxError
from steerx_edge.live_prefix import LivePrefix
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.compat import Llama, LlamaState, LogitsProcessorList
from steerx_edge.llamacpp.control_vector import ControlVector, set_control_vector
from steerx_edge.llamacpp.final_row import evaluate_with_row, final_row
from steerx_edge.llamacpp.models import identify, is_recurrent
from steerx_edge.llamacpp.vocabulary import Vocabulary
from steerx_edge.profile import Entry, Profile
from steerx_edge.steering.barred import Bar
from steerx_edge.steering.steering import Steering

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray
    from typing_extensions import Self


_HANDLE = "_steerx_edge_steering"
"""Where a steered Llama keeps its handle: there is one at most."""

_BARRED_TAIL = 1000
"""Tokens at the end of an answer that words that may not be written are looked for in: none of them
is longer in characters."""

_ENDED = (
    "This stream was made while the model was steered, and the steering has ended: what is read "
    "from now on is not steered. Read the whole stream before clear(), or within `with`."
)
_OWN_LOOP = (
    "llama.sample() was called outside of llama.generate(): this token is not steered, nor what "
    "llama.eval() evaluates by itself. Use llama.generate(), or a completion or chat."
)


def steer(
    llama: Llama,
    profile: Profile | str | os.PathLike[str],
    strength: float = 1.0,
    *,
    with_history: bool = False,
    prefix: bool = False,
) -> SteeringHandle:
    """Make a model write like the user of a profile, until `clear()` or the end of `with`.

    Completions, chats and `llama.generate` are steered, with streams, grammars and tools. The
    caller's own logits processors and logit bias come after the profile's logit bias and memory.
    With a draft model, do not clear in the middle of a stream, and the memory is not used, since
    several tokens are evaluated at once.

    Not steered, with a `UserWarning` where it happens: the rest of a stream that is read after
    `clear()` or the end of `with`, and a caller's own loop of `llama.eval` and `llama.sample`.

    Prompt caches and `save_state` may be used: from what is saved while the model is steered, no
    later prompt takes a steered cell. (A cache that was set before is set aside meanwhile.) This
    does not hold for states that are saved by llama.cpp's own functions.

    Args:
        llama: the model; not from another thread while it generates.
        profile: a profile, or the path of one.
        strength: relative to what was learned; 1 is that, 0 is none, below 0 steers away.
        with_history: the prompts hold texts of the user: use the strengths that were learned for
            that, if there are any.
        prefix: begin chats (`create_chat_completion`), after their system message, with the texts
            of the prefix next to `profile`, which must be a path: see `learn --prefix`. If it has
            two beginnings, the chat's first request chooses. Their KV cells are put into the
            context in milliseconds. Other prompts get these cells if they begin with the same
            tokens. Implies `with_history`.

    Returns:
        A handle whose `strength` can be changed at any time.

    Raises:
        ProfileError: the profile or its prefix cannot be read, or was made for another model.
        ModelError: `llama` is closed, or its architecture gives no rows that a memory needs.
        SteerxError: `llama` is steered already, or the profile steers the prompt itself, which a
            prefix cannot begin with.
    """
    if _HANDLE in vars(llama):
        raise SteerxError(
            "This model is already steered. Call clear() on the result of steer(), or leave its "
            "`with` block, before steering it again."
        )
    live_prefix = None
    if prefix:
        if isinstance(profile, Profile):
            raise SteerxError("With prefix=True, give the path of the profile: it lies next to it.")
        live_prefix = LivePrefix.load(llama, profile)
    if not isinstance(profile, Profile):
        profile = Profile.load(profile)
    return SteeringHandle(llama, profile, strength, with_history=with_history, prefix=live_prefix)


@dataclass
class _Answer:
    """What is being generated."""

    prompt_pending: bool = True
    leaves_alone: bool = False  # the gate is closed


class _Vector:
    """The control vector of a Llama's own context.

    Attributes:
        control: what is added while it is on; None for nothing.
        first_steered: the first KV cell that was made under it, or None.
    """

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._is_on = False
        self.control: ControlVector | None = None
        self.first_steered: int | None = None

    def switch(self, *, on: bool) -> None:
        """Add it from the next evaluation on, or no longer."""
        on = on and self.control is not None
        if on != self._is_on and self._llama.ctx is not None:  # else the model was closed
            set_control_vector(self._llama.ctx, self._llama.model, self.control if on else None)
        self._is_on = on

    def mark(self, cell: int) -> None:
        """Note that a cell is made under it."""
        if self.control is not None:
            first = self.first_steered
            self.first_steered = cell if first is None else min(cell, first)


class SteeringHandle:
    """What `steer` returns: changes the strength and ends the steering."""

    def __init__(
        self,
        llama: Llama,
        profile: Profile,
        strength: float,
        *,
        with_history: bool,
        prefix: LivePrefix | None = None,
    ) -> None:
        self._llama = llama
        self._entry = profile.entry_for(identify(llama))
        self._with_history = with_history or prefix is not None
        self._prefix = prefix
        self._vector = _Vector(llama)
        self._answer: _Answer | None = None
        self._bar: Bar | None = None
        self._pieces: list[bytes] = []
        self._has_row = False  # the last evaluation gave the row that the memory needs
        self._generate, self._eval, self._sample = llama.generate, llama.eval, llama.sample
        self._complete, self._chat = llama.create_completion, llama.create_chat_completion
        self._save, self._load = llama.save_state, llama.load_state
        self._cache = llama.cache
        # Checks the profile and the strength, before anything is changed.
        _check(self._entry, llama)
        if prefix is not None and self._entry.positions == "all":
            raise SteerxError(
                "This profile steers all positions, the prompt's too, so no prompt can begin with "
                "a prefix that was evaluated unsteered. Leave out the prefix."
            )
        self._set_strength(strength)
        llama.set_cache(None)
        self._replaced = compat.replace_methods(
            llama,
            generate=self._steered_generate,
            eval=self._steered_eval,
            sample=self._checked_sample,
            create_completion=self._checked_completion,
            create_chat_completion=self._prefixed_chat,
            save_state=self._save_state,
            load_state=self._load_state,
        )
        setattr(llama, _HANDLE, self)
        self._start()

    @property
    def strength(self) -> float:
        """Relative strength: 1 is what was learned, 0 is none. May be set at any time."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        if self._is_cleared:
            raise SteerxError("This steering was cleared. Call steer() again.")
        self._set_strength(strength)
        self._vector.switch(on=False)
        self._start()

    def clear(self) -> None:
        """End the steering; the model is as it was. Safe to call again."""
        llama = self._llama
        if self._is_cleared:
            return
        delattr(llama, _HANDLE)
        self._use(Steering())  # an unfinished stream may go on
        compat.restore_methods(llama, self._replaced)
        if llama.cache is None:
            llama.set_cache(self._cache)
        self._vector.switch(on=False)
        self._forget_cells(0 if self._entry.positions == "all" else self._vector.first_steered)

    def _set_strength(self, strength: float) -> None:
        self._use(self._entry.steering(strength, with_history=self._with_history))
        self._strength = strength

    def _use(self, steering: Steering) -> None:
        self._steering = steering
        vectors = ControlVector(steering.layers, steering.vectors) if steering.adds else None
        self._vector.control = vectors
        if steering.never and self._bar is None:
            self._pieces = Vocabulary(self._llama.model).pieces()
            self._bar = Bar(steering.never, self._pieces)
        self._biased = np.fromiter(steering.logit_bias, np.intp)
        self._bias = np.fromiter(steering.logit_bias.values(), np.float32)

    def _change_logits(
        self, answer: _Answer, n_prompt: int, ids: NDArray[np.intc], logits: NDArray[np.single]
    ) -> NDArray[np.single]:
        """After a prompt, a logits processor as llama-cpp-python calls them.

        It may change what it is given.
        """
        if not answer.leaves_alone:
            self._steer_logits(n_prompt, ids, logits)
        if self._bar is not None and self._steering.never:
            text = b"".join(self._pieces[token] for token in ids[n_prompt:][-_BARRED_TAIL:])
            logits[self._bar.tokens_after(text)] = -np.inf
        return logits

    def _steer_logits(
        self, n_prompt: int, ids: NDArray[np.intc], logits: NDArray[np.single]
    ) -> None:
        memory = self._steering.memory
        logits[self._biased] += self._bias
        # With a draft model few tokens have a row, so all go without.
        if memory is not None and self._has_row and self._llama.draft_model is None:
            memory.shift(self._row(), ids[n_prompt:], logits)

    def _start(self) -> None:
        """Where all rows are steered, the vector stays on, and no older cell may be re-used."""
        if self._entry.positions == "all":
            self._forget_cells(0)
            self._vector.switch(on=self._answer is None or not self._answer.leaves_alone)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def _steered_generate(
        self, tokens: Sequence[int], *args: Any, **kwargs: Any
    ) -> Generator[int, Sequence[int] | None, None]:
        """`Llama.generate`: a new prompt comes in."""
        if self._is_cleared:  # made before, and read from now on
            warnings.warn(_ENDED, stacklevel=2)
            yield from self._llama.generate(tokens, *args, **kwargs)
            return
        options = {**dict(zip(compat.GENERATE_OPTIONS, args, strict=False)), **kwargs}
        answer = _Answer()
        if self._prefix is not None and options.get("reset", True):
            tokens = self._begin(self._prefix, list(tokens), options)
        entry = self._entry
        if entry.logit_bias is not None or entry.memory is not None or entry.edits:
            before = 0 if options.get("reset", True) else self._llama.n_tokens
            change = partial(self._change_logits, answer, before + len(tokens))
            processors = options.get("logits_processor") or ()
            options["logits_processor"] = LogitsProcessorList([change, *processors])
        self._answer = None  # an unfinished one no longer counts
        if options.get("reset", True):
            by_all = self._entry.positions == "all" and self._is_gated  # which begins unsteered
            self._forget_cells(0 if by_all else self._vector.first_steered)
        if self._acts:
            # The logits left from an unsteered pass over this very prompt must not be sampled, and
            # with them there is no row.
            compat.evaluate_anew(self._llama)
        self._answer = answer
        try:
            yield from _warning(self._generate(tokens, **options), lambda: self._is_cleared)
        finally:
            if self._answer is answer:
                self._answer = None
                self._vector.switch(on=self._entry.positions == "all" and not self._is_cleared)

    def _begin(
        self, prefix: LivePrefix, tokens: list[int], options: dict[str, Any]
    ) -> Sequence[int]:
        """Let the context begin with the prefix; what `generate` is still to be given."""
        self._answer = None  # an unfinished one no longer counts
        self._vector.switch(on=False)
        self._forget_cells(self._vector.first_steered)
        n_tokens = prefix.begin(tokens)
        if not n_tokens or prefix.rolls_back or n_tokens == len(tokens):
            return tokens
        options["reset"] = False
        return tokens[n_tokens:]

    def _prefixed_chat(self, messages: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """`Llama.create_chat_completion`."""
        if self._prefix is not None and not self._is_cleared:
            messages = self._prefix.placed(messages)
        return self._chat(messages, *args, **kwargs)  # type: ignore[arg-type]

    def _checked_completion(self, *args: Any, **kwargs: Any) -> Any:
        """`Llama.create_completion`: a stream generates nothing before it is read from."""
        answer = self._complete(*args, **kwargs)
        return answer if isinstance(answer, dict) else self._read(answer)

    def _read(self, stream: Iterator[Any]) -> Iterator[Any]:
        if self._is_cleared:
            warnings.warn(_ENDED, stacklevel=2)
        yield from stream

    def _checked_sample(self, *args: Any, **kwargs: Any) -> Any:
        """`Llama.sample`, of which a caller may have made a loop of their own."""
        if self._answer is None:
            warnings.warn(_OWN_LOOP, stacklevel=2)
        return self._sample(*args, **kwargs)

    def _save_state(self) -> LlamaState:
        """`Llama.save_state`, for a prompt cache or the caller: no prompt matches steered cells."""
        state = self._save()
        first = 0 if self._entry.positions == "all" else self._vector.first_steered
        if first is not None:
            compat.hide_from(state, first)
        return state

    def _load_state(self, state: LlamaState) -> None:
        """`Llama.load_state`: where all rows are steered, no cell that it brings may be re-used."""
        self._load(state)
        if self._entry.positions == "all":
            compat.hide_from(self._llama, 0)

    def _steered_eval(self, tokens: Sequence[int]) -> None:
        """`Llama.eval`: the rows of a prompt but its last go unsteered, all others steered."""
        answer, self._has_row = self._answer, False
        is_prompt = answer is not None and answer.prompt_pending
        if answer is not None:
            answer.prompt_pending = False
        if answer is None or answer.leaves_alone or not self._acts:
            self._eval(tokens)
            return
        last = list(tokens)
        everywhere = self._entry.positions == "all"
        if is_prompt and len(last) > 1:
            self._vector.switch(on=everywhere and not self._is_gated)
            self._eval(last[:-1])
            last = last[-1:]
        if is_prompt and self._is_gated and not self._pass_gate(answer, list(tokens)):
            return
        self._vector.switch(on=True)
        self._vector.mark(self._llama.n_tokens)
        if self._steering.memory is None or len(last) > 1:
            self._eval(last)
        else:
            self._eval_with_row(last)

    def _pass_gate(self, answer: _Answer, prompt: list[int]) -> bool:
        """Evaluate the last token of a prompt unsteered, which tells whether to steer at all.

        Returns:
            Whether that token is still to be evaluated, steered.
        """
        self._vector.switch(on=False)
        self._eval_with_row(prompt[-1:])
        answer.leaves_alone = not self._fits()
        if is_recurrent(self._llama.model):
            return False  # its state cannot be rolled back: steered from the next token on
        if answer.leaves_alone:  # exactly as if it had never been steered
            compat.forget_from(self._llama, self._llama.n_tokens - len(prompt))
            self._eval(prompt)
            return False
        if self._vector.control is None:
            return False
        everywhere = self._entry.positions == "all"
        compat.forget_from(self._llama, self._llama.n_tokens - (len(prompt) if everywhere else 1))
        if everywhere and len(prompt) > 1:
            self._vector.switch(on=True)
            self._eval(prompt[:-1])
        return True

    @property
    def _is_cleared(self) -> bool:
        return vars(self._llama).get(_HANDLE) is not self

    @property
    def _acts(self) -> bool:
        """Whether the strength lets anything act that depends on how a prompt is evaluated."""
        by_row = self._steering.memory is not None or (self._is_gated and bool(self._bias.any()))
        return self._vector.control is not None or by_row

    @property
    def _is_gated(self) -> bool:
        """Whether the row before an answer tells if it is steered."""
        without_rows = self._entry.model.architecture in compat.NO_LOGITS_WITH_ROWS
        return self._steering.gate is not None and not without_rows

    def _fits(self) -> bool:
        gate = self._steering.gate
        return gate is None or bool(gate.is_open(self._row()[None])[0])

    def _eval_with_row(self, tokens: Sequence[int]) -> None:
        evaluate_with_row(self._llama, tokens, self._eval)
        self._has_row = True

    def _row(self) -> NDArray[np.float32]:
        return final_row(self._llama, self._entry.model.n_embd)

    def _forget_cells(self, first: int | None) -> None:
        """Let llama-cpp-python re-use no KV cell from `first` on for another prompt."""
        llama = self._llama
        self._vector.first_steered = None
        if first is None or first >= llama.n_tokens:
            return
        if self._answer is None:
            compat.forget_from(llama, first)
            compat.evaluate_anew(llama)
        else:
            # An unfinished stream may still go on after these cells, so they stay.
            compat.hide_from(llama, first)


def _warning(
    stream: Generator[int, Sequence[int] | None, None], is_over: Callable[[], bool]
) -> Generator[int, Sequence[int] | None, None]:
    """A stream of tokens that warns where it goes on after the steering has ended."""
    warned = False
    with closing(stream):
        token = next(stream, None)
        while token is not None:
            given = yield token
            if is_over() and not warned:
                warned = True
                warnings.warn(_ENDED, stacklevel=3)
            try:
                token = stream.send(given)
            except StopIteration:
                return


def _check(entry: Entry, llama: Llama) -> None:
    """Refuse an entry that this model cannot be steered by.

    Raises:
        ProfileError: the entry names tokens that the model does not have.
        ModelError: the architecture gives no rows that a memory needs.
    """
    part, bias, n_vocab = entry.memory, entry.logit_bias, llama.n_vocab()
    memory = None if part is None else part.memory
    highest = {
        "logit_bias": -1 if bias is None else bias.tokens[-1],
        "memory": -1 if memory is None else memory.tokens.max(),
    }
    for what, token in highest.items():
        if token >= n_vocab:
            raise ProfileError(
                f"This profile's {what} names token {token}, but the model has only {n_vocab}: "
                "the profile is damaged. Learn again with this model."
            )
    if memory is not None and entry.model.architecture in compat.NO_LOGITS_WITH_ROWS:
        raise ModelError(
            f"The architecture '{entry.model.architecture}' gives no logits together "
            "with its rows in this llama.cpp, so a memory cannot be used with it. Learn with "
            "--memory none, or set the memory's strength to 0 in the profile."
        )
