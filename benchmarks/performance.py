"""What steerx-edge costs, set against llama.cpp itself on the same machine, in the same run.

Each line is a ratio of times taken in turns: its median over the rounds with the quartiles, and the
bar it must reach. The exit status is 1 where one is missed by more than the measured noise, that is
where the better quartile misses it too.

    python benchmarks/performance.py [-m MODEL.gguf ...] [--only scoring,capture,...]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from steerx_edge.llamacpp.waiting import wait_briefly

wait_briefly()

import in_turns
import llama_cpp
import numpy as np
from in_turns import Ratio, ratio, seconds_in_turns
from llama_cpp import Llama

from steerx_edge import Engine, HistoryItem, Profile, Settings, learn, read_history, steer
from steerx_edge.learning.effects import Effects
from steerx_edge.learning.memory_rows import MemoryRows
from steerx_edge.learning.prefix import chosen_prefixes, prefix_of
from steerx_edge.live_prefix import LivePrefix
from steerx_edge.llamacpp import compat
from steerx_edge.llamacpp.engine import load_llama
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult, asked_for
from steerx_edge.profile import Entry, LogitBias, MemoryPart
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.memory import KeySpace, Memory

N_TOKENS = 128  # of a generated text
TEXTS = Path(__file__).parent.parent / "docs" / "demo" / "history.jsonl"


@dataclass(frozen=True)
class Line:
    """One ratio against its bar; at least, or at most."""

    what: str
    against: str
    value: Ratio
    bar: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """reached, missed, or missed within the noise."""
        if self.at_least:
            inside, nearly = self.value.median >= self.bar, self.value.high >= self.bar
        else:
            inside, nearly = self.value.median <= self.bar, self.value.low <= self.bar
        return "reached" if inside else "within noise" if nearly else "MISSED"

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        bar = f"{sign} {self.bar:g}"
        return f"{self.what:44} {self.against:34} {self.value!s:>22}  {bar:>8}  {self.verdict}"


class Bare:
    """A plain context on the same weights, through the C functions and nothing else."""

    def __init__(self, llama: Llama, n_ctx: int = 2048) -> None:
        params = type(llama.context_params).from_buffer_copy(llama.context_params)
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = 512
        params.n_outputs_max = params.n_outputs_max_per_seq = 512
        params.n_threads = params.n_threads_batch
        self._context = llama_cpp.llama_init_from_model(llama.model, params)
        self._batch = llama_cpp.llama_batch_init(512, 0, 1)

    def evaluate(self, tokens: Sequence[int], *, logits: bool) -> None:
        """All tokens of one sequence, in calls of 512; logits of all rows, or of the last."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        for begin in range(0, len(tokens), 512):
            part = tokens[begin : begin + 512]
            self._batch.n_tokens = len(part)
            for row, token in enumerate(part):
                self._batch.token[row] = token
                self._batch.pos[row] = begin + row
                self._batch.n_seq_id[row] = 1
                self._batch.seq_id[row][0] = 0
                self._batch.logits[row] = logits or begin + row == len(tokens) - 1
            if llama_cpp.llama_decode(self._context, self._batch) != 0:
                raise SystemExit("llama_decode failed")
            llama_cpp.llama_get_logits_ith(self._context, len(part) - 1)

    def close(self) -> None:
        """Free it, before the model."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)


class CountingEngine(Engine):
    """Remembers the passes it was asked for, to count their distinct tokens."""

    def __init__(self, model: str, n_threads: int | None) -> None:
        super().__init__(model, n_threads=n_threads)
        self.requests: list[ScoreRequest] = []
        self.n_written = 0

    def run_many(
        self, requests: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        """Note the passes, and run them."""
        self.requests += requests
        return super().run_many(requests, done)

    def generate_many(self, requests: Sequence[GenerateRequest]) -> list[str]:
        """Note the tokens, and generate."""
        texts = super().generate_many(requests)
        self.n_written += sum(len(request.context) for request in requests)
        self.n_written += sum(len(self.tokenize(text)) for text in texts)
        return texts

    def n_distinct(self) -> int:
        """Tokens that must be evaluated however much is shared: the nodes of the tree."""
        prefixes = {
            bytes(np.asarray([*request.context[:-1]][:n], dtype=np.int32))
            for request in self.requests
            for n in range(1, len(request.context))
        }
        return (
            len(prefixes)
            + sum(1 + len(request.response) for request in self.requests)
            + self.n_written
        )


def text_tokens(engine: Engine, n: int) -> list[int]:
    """Real prose."""
    text = "\n\n".join(item.response for item in read_history(TEXTS))
    return engine.tokenize(text)[:n]


def short_items(n: int) -> list[HistoryItem]:
    """Texts of 70 words and their requests; no two begin alike, and up to 29 do not overlap."""
    words = " ".join(item.response for item in read_history(TEXTS)).split()
    begins = [i * (len(words) - 70) // max(1, n - 1) for i in range(n)]
    return [
        HistoryItem(
            " ".join(words[begin : begin + 70]),
            f"Write a paragraph about {' '.join(words[begin : begin + 6])}.",
        )
        for begin in begins
    ]


def titles(n: int) -> list[HistoryItem]:
    """Texts of 10 words, for requests of 240."""
    words = " ".join(item.response for item in read_history(TEXTS)).split()
    begins = [i * (len(words) - 250) // (n - 1) for i in range(n)]
    return [
        HistoryItem(
            " ".join(words[begin + 240 : begin + 250]),
            f"Write a title for: {' '.join(words[begin : begin + 240])}",
        )
        for begin in begins
    ]


def scoring(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Scored tokens per second."""
    tokens = text_tokens(engine, 512)
    bare = Bare(engine.llama)
    whole = ScoreRequest(tokens[:1], tokens[1:])
    times = seconds_in_turns(
        {
            "bare": lambda: bare.evaluate(tokens, logits=True),
            "ours": lambda: engine.run(whole),
        },
        rounds,
    )
    bare.close()
    speed = len(tokens) / np.median(times["ours"])
    yield Line(
        f"scored tokens per second ({speed:.0f})",
        "bare decode, logits on all rows",
        ratio(times["bare"], times["ours"]),
        0.95,
        at_least=True,
    )
    few = tokens[:48]  # it takes most of a second a token
    text = b"".join(engine.pieces(few)).decode(errors="ignore")
    echoing = Llama(
        engine.llama.model_path,
        n_ctx=512,
        logits_all=True,
        n_threads=engine.llama.n_threads,
        n_threads_batch=engine.llama.n_threads_batch,
        verbose=False,
    )
    times = seconds_in_turns(
        {
            "echo": lambda: echoing.create_completion(text, max_tokens=1, echo=True, logprobs=1),
            "ours": lambda: engine.run(whole),
        },
        max(2, rounds // 2),
    )
    echoing.close()
    as_few = [seconds * len(few) / len(tokens) for seconds in times["ours"]]
    yield Line(
        "scored tokens per second",
        "llama-cpp-python, echo + logprobs",
        ratio(times["echo"], as_few),
        30 if engine.model_id.n_params > 300e6 else 10,
        at_least=True,
    )


def capture(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Reading the residual stream."""
    tokens = text_tokens(engine, 512)
    n_layer = engine.analysis.n_layer
    bare = Bare(engine.llama)
    context, response = tokens[:1], tokens[1:]
    mean = np.full((1, len(tokens)), 1 / len(tokens), np.float32)
    middle = ScoreRequest(context, response, score=False, layers=(n_layer // 2 - 1,), weights=mean)
    everything = ScoreRequest(context, response, score=False, layers=tuple(range(n_layer)))
    times = seconds_in_turns(
        {
            "bare": lambda: bare.evaluate(tokens, logits=False),
            "middle": lambda: engine.run(middle),
            "everything": lambda: engine.run(everything),
        },
        rounds,
    )
    bare.close()
    against = "bare pass"
    yield Line(
        "mean of the middle layer, early exit",
        against,
        ratio(times["middle"], times["bare"]),
        0.62,
        at_least=False,
    )
    yield Line(
        "all rows of all layers",
        against,
        ratio(times["everything"], times["bare"]),
        1.10,
        at_least=False,
    )


def learning(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Learning against the tokens that it cannot do without, and as the history grows."""
    passes_only = Settings(
        contrast_methods=("context-contrast",), logit_bias=False, calibrate=False, sample=80
    )
    items = short_items(20)
    bare = Bare(engine.llama)
    tokens = text_tokens(engine, 512)
    long = titles(16)
    n_long = sum(len(engine.raw_prompt(each.request + each.response)) for each in long)
    times = seconds_in_turns(
        {
            "bare": lambda: bare.evaluate(tokens, logits=False),
            "long": lambda: learn(engine, long),
        },
        1,
        warm_up=False,
    )
    yield Line(
        f"learn, 16 texts of 10 words with requests of 240 ({times['long'][0]:.0f} s)",
        f"these {n_long} tokens at bare speed",
        ratio(times["long"], [times["bare"][0] * n_long / len(tokens)]),
        6,
        at_least=False,
    )
    engine.requests, engine.n_written = [], 0
    learn(engine, items, passes_only)
    n_distinct = engine.n_distinct()
    times = seconds_in_turns(
        {
            "bare": lambda: bare.evaluate(tokens, logits=False),
            "learn": lambda: learn(engine, items, passes_only),
        },
        max(2, rounds // 2),
    )
    bare.close()
    at_bare_speed = [seconds * n_distinct / len(tokens) for seconds in times["bare"]]
    yield Line(
        f"learn, 20 items of 70 words ({np.median(times['learn']):.0f} s)",
        f"{n_distinct} distinct tokens at bare speed",
        ratio(times["learn"], at_bare_speed),
        1.25,
        at_least=False,
    )
    sizes = {n: short_items(n) for n in (10, 20, 40, 80)}
    times = seconds_in_turns(
        {str(n): partial(learn, engine, texts, passes_only) for n, texts in sizes.items()},
        1,
        warm_up=False,
    )
    each = [times[str(n)][0] / n for n in sizes]
    yield Line(
        f"learn, seconds an item: {' '.join(f'{one:.2f}' for one in each)}",
        "80 items against 20",
        ratio([each[3]], [each[1]]),
        1.10,
        at_least=False,
    )
    times = seconds_in_turns(
        {
            "without": partial(learn, engine, items, Settings(calibrate=False)),
            "with": partial(learn, engine, items),
        },
        1,
        warm_up=False,
    )
    yield Line(
        f"learn with calibration ({times['with'][0]:.0f} s)",
        "learn without",
        ratio(times["with"], times["without"]),
        2.5,
        at_least=False,
    )


def profile_of(engine: Engine, seed: int) -> Profile:
    """A weak random direction: what it costs does not depend on where it points."""
    rng = np.random.default_rng(seed)
    n_embd = engine.model_id.n_embd
    direction = rng.standard_normal((1, n_embd)).astype(np.float32)
    direction /= np.linalg.norm(direction)
    learned = learn(engine, short_items(2), Settings(calibrate=False)).entries[0]
    values = vars(learned) | {"directions": direction, "strengths": [0.02]}
    return Profile(entries=(Entry(**values),))


def memory_of(engine: Engine, n_rows: int) -> Memory:
    """Real rows, repeated with noise until there are so many."""
    items = short_items(20)
    requests = [
        ScoreRequest(engine.raw_prompt(item.request), engine.tokenize(item.response))
        for item in items
    ]
    results = engine.run_many([replace(request, final=True) for request in requests])
    finals = [asked_for(result.final) for result in results]
    rows = MemoryRows(KeySpace.fit(np.concatenate(finals)), "all", engine.end_of_turn)
    for request, item, final in zip(requests, items, finals, strict=True):
        tokens = list(request.response)
        no_effect = np.zeros(len(tokens), np.float32)
        rows.add(Effects(tokens, engine.pieces(tokens), no_effect), item.request, rows.keys(final))
    memory = rows.memory()
    places = np.arange(n_rows) % len(memory.tokens)
    keys = memory.keys[places].astype(np.int16)
    keys[len(memory.tokens) :] += np.random.default_rng(0).integers(
        -8, 9, keys[len(memory.tokens) :].shape, np.int16
    )
    return replace(
        memory,
        keys=keys.clip(-127, 127).astype(np.int8),
        tokens=memory.tokens[places],
        weights=memory.weights[places],
    )


def with_memory(engine: Engine, profile: Profile, n_rows: int) -> Profile:
    """The same with a weak logit bias, a weak memory, and a gate that never closes."""
    texts = [engine.tokenize(item.response) for item in short_items(20)]
    tokens = np.unique(np.concatenate(texts)).astype(np.int32)
    logit_bias = LogitBias(tokens, np.full(len(tokens), 0.01, np.float32), 1.0)
    memory = MemoryPart.of(memory_of(engine, n_rows), strength=0.01, level="all")
    gate = Gate(np.ones(engine.model_id.n_embd, np.float32), -1e6)
    return Profile(
        entries=(replace(profile.entries[0], logit_bias=logit_bias, memory=memory, gate=gate),)
    )


def in_ms(seconds: list[float]) -> Ratio:
    """Milliseconds."""
    return ratio(seconds, [1e-3] * len(seconds))


def generate(llama: Llama, prompt: Sequence[int]) -> None:
    """Write N_TOKENS tokens."""
    llama.reset()  # type: ignore[no-untyped-call]
    for _ in itertools.islice(llama.generate(prompt, temp=0), N_TOKENS):
        pass


def generate_steered(llama: Llama, prompt: Sequence[int], profile: Profile) -> None:
    """The same, under a profile."""
    with steer(llama, profile):
        generate(llama, prompt)


def steering(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Generating under a profile."""
    llama = engine.llama
    profile, other = profile_of(engine, 1), profile_of(engine, 2)
    entry = profile.entries[0]
    prompt = text_tokens(engine, 64)

    def side_by_side(changes: Sequence[tuple[Add, ...]]) -> Callable[[], object]:
        # Different prompts, or they would be shared; nothing ends a text early.
        end = {llama.token_eos(): -1e9}
        requests = [
            GenerateRequest(
                text_tokens(engine, 64 + i), N_TOKENS, interventions=change, logit_bias=end
            )
            for i, change in enumerate(changes)
        ]
        return lambda: engine.analysis.generate_many(requests)

    rng = np.random.default_rng(0)
    n_embd = engine.model_id.n_embd
    added = [
        (Add(entry.layers, 0.01 * rng.standard_normal((1, n_embd)).astype(np.float32)),)
        for _ in range(4)
    ]
    times = seconds_in_turns(
        {
            "plain": partial(generate, llama, prompt),
            "steered": partial(generate_steered, llama, prompt, profile),
            "one": side_by_side([()]),
            "one hooked": side_by_side(added[:1]),
            "four": side_by_side([()] * 4),
            "four hooked": side_by_side(added),
        },
        rounds,
    )
    speed = N_TOKENS / float(np.median(times["steered"]))
    yield Line(
        f"generation, control vector ({speed:.0f} tokens/s)",
        "unsteered",
        ratio(times["plain"], times["steered"]),
        0.98,
        at_least=True,
    )
    yield Line(
        "generation, hook on one layer",
        "unsteered",
        ratio(times["one"], times["one hooked"]),
        0.97,
        at_least=True,
    )
    yield Line(
        "a batch of 4, 4 different profiles",
        "the same batch unsteered",
        ratio(times["four"], times["four hooked"]),
        0.93,
        at_least=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "me.json"
        profile.save(path)

        def load_and_apply() -> None:
            steer(llama, Profile.load(path)).clear()

        def switch() -> None:
            steer(llama, other).clear()

        times = seconds_in_turns({"load": load_and_apply, "switch": switch}, 10 * rounds)
    for name, what, bar in (
        ("load", "profile load + apply, ms", 5),
        ("switch", "another profile, ms", 1),
    ):
        yield Line(what, "-", in_ms(times[name]), bar, at_least=False)


def memory(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Generating with a memory, and loading one."""
    llama, prompt, weak = engine.llama, text_tokens(engine, 64), profile_of(engine, 1)
    bars = {3_000: 0.97, 100_000: 0.90}
    profiles = {n_rows: with_memory(engine, weak, n_rows) for n_rows in bars}
    times = seconds_in_turns(
        {"plain": partial(generate, llama, prompt)}
        | {str(n): partial(generate_steered, llama, prompt, one) for n, one in profiles.items()},
        rounds,
    )
    for n_rows, bar in bars.items():
        yield Line(
            f"generation, logit bias and memory of {n_rows:,} rows",
            "unsteered",
            ratio(times["plain"], times[str(n_rows)]),
            bar,
            at_least=True,
        )
    whole = memory_of(engine, 100_000)
    row = np.random.default_rng(0).standard_normal((1, engine.model_id.n_embd))
    for n_rows, bar in {3_000: 0.3, 20_000: 0.6, 100_000: 2}.items():
        part = replace(
            whole,
            keys=whole.keys[:n_rows],
            tokens=whole.tokens[:n_rows],
            weights=whole.weights[:n_rows],
        )
        times = seconds_in_turns({"lookup": partial(part.offers, row)}, 10 * rounds)
        yield Line(
            f"lookup, memory of {n_rows:,} rows, ms",
            "-",
            in_ms(times["lookup"]),
            bar,
            at_least=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "me.json"
        profiles[100_000].save(path)
        data = path.with_suffix(".memory.gguf").read_bytes()
        times = seconds_in_turns(
            {
                "load": lambda: Profile.load(path),
                "hash": lambda: hashlib.sha256(data).digest(),
            },
            2 * rounds,
        )
    yield Line(
        "profile load, memory of 100,000 rows, ms",
        f"- (SHA-256 alone: {1000 * np.median(times['hash']):.1f} ms)",
        in_ms(times["load"]),
        20,
        at_least=False,
    )


def prefix(engine: CountingEngine, rounds: int) -> Iterator[Line]:
    """Answering after a prefix of about 1,000 tokens, against an empty context."""
    llama = engine.llama
    plain = load_llama(
        Path(llama.model_path),
        n_ctx=llama.n_ctx(),
        n_threads=llama.n_threads,
        n_gpu_layers=0,
        seed=0,
    )
    requests = ["Write to Ana: the meeting is at four.", "Write to Tom: the report is due today."]
    turn = itertools.count()

    def answer(model: Llama, n_tokens: int) -> None:
        # Another request than the one before, whose cells could all be used again.
        message = {"role": "user", "content": requests[next(turn) // 2 % 2]}
        chunks = model.create_chat_completion(
            [message],  # type: ignore[list-item]
            max_tokens=n_tokens,
            temperature=0,
            logit_bias={model.token_eos(): -100.0},
            stream=True,
        )
        for _ in chunks:
            pass

    def from_nothing(n_tokens: int) -> None:
        plain.reset()  # type: ignore[no-untyped-call]
        answer(plain, n_tokens)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "me.json"
        weak = profile_of(engine, 1).entries[0]
        Profile((replace(weak, strengths=0 * weak.strengths),)).save(path)
        texts = chosen_prefixes(engine, short_items(60), 1024, most=1)
        made = prefix_of(engine, *texts)
        made.save(path)

        def load() -> None:
            compat.empty(llama)
            LivePrefix.load(llama, path).begin([*made.beginnings[0].tokens, 1])

        loading = seconds_in_turns({"load": load}, 4 * rounds)["load"]
        with steer(llama, path, prefix=True):
            tasks = {
                "first, nothing": partial(from_nothing, 1),
                "first, prefix": partial(answer, llama, 1),
                "text, nothing": partial(from_nothing, N_TOKENS),
                "text, prefix": partial(answer, llama, N_TOKENS),
            }
            times = seconds_in_turns(tasks, 2 * rounds)
    plain.close()
    what = f"{len(made.beginnings[0].tokens)} tokens, {made.size}"
    yield Line(f"prefix load, {what}, ms", "-", in_ms(loading), 60, at_least=False)
    yield Line(
        "time to the first token, prefix loaded",
        "an empty context",
        ratio(times["first, prefix"], times["first, nothing"]),
        1.1,
        at_least=False,
    )
    speeds = {
        what: [
            all_of - first
            for all_of, first in zip(times[f"text, {what}"], times[f"first, {what}"], strict=True)
        ]
        for what in ("nothing", "prefix")
    }
    yield Line(
        "generation after a prefix",
        "an empty context",
        ratio(speeds["nothing"], speeds["prefix"]),
        0.9,
        at_least=True,
    )


PARTS: dict[str, Callable[[CountingEngine, int], Iterator[Line]]] = {
    "scoring": scoring,
    "capture": capture,
    "learning": learning,
    "steering": steering,
    "memory": memory,
    "prefix": prefix,
}


def main() -> None:
    """Print the table of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", action="append", help="GGUF; may be given several times")
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument(
        "--busy", action="store_true", help="the machine is: take processor time, with -t 1 alone"
    )
    args = parser.parse_args()
    if args.busy:
        in_turns.clock = time.process_time
    missed = False
    for model in args.model or [None]:
        engine = CountingEngine(model, args.threads)
        print(f"\n{engine.model_id.name}, {engine.llama.n_threads} threads")
        for part in args.only.split(","):
            for line in PARTS[part](engine, args.rounds):
                print(line, flush=True)
                missed = missed or line.verdict == "MISSED"
        engine.close()
        engine.llama.close()
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
