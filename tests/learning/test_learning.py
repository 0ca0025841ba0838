"""The whole road, against the NumPy reference and, once, on a real model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from models.operations import log_softmax
from models.vocabulary import train_vocabulary
from steerx_edge.errors import HistoryError, ModelError, SteerxError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import folds_of, read_further
from steerx_edge.learning.calibration import Calibration, HeldOutScores, Scored, Setting
from steerx_edge.learning.description import fixed_description, style_facts, why_unusable
from steerx_edge.learning.effects import Effects, word_effects
from steerx_edge.learning.learn import default_layers, learn
from steerx_edge.learning.settings import Settings
from steerx_edge.learning.texts import sampled
from steerx_edge.llamacpp.analysis import AnalysisContext
from steerx_edge.llamacpp.control_vector import check_layers
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.llamacpp.requests import GenerateRequest, ScoreRequest, ScoreResult, asked_for
from steerx_edge.profile import Entry, Gain, Profile, WithHistory
from steerx_edge.steering.gate import Gate
from steerx_edge.steering.logit_bias import SMOOTHING
from steerx_edge.version import __version__
from tests.support.engines import InterruptedEngine

END_OF_TEXT = train_vocabulary().eos

HISTORY = [
    HistoryItem("the kettle sang all day... lol, so very tired of tea", "Write about the kettle."),
    HistoryItem("ran down the rabbit hole again... lol! never once looked", "Write of the rabbit."),
    HistoryItem("her sister read a book with no pictures in it... so dull"),
    HistoryItem(
        "a daisy chain is worth it... lol, picking all the daisies", "Write about a chain."
    ),
]

FAST = Settings(calibrate=False)
"""Where calibration is not the point: test_calibration.py has it."""

CONTRAST = Settings(
    contrast_methods=("context-contrast",), described=True, logit_bias=False, calibrate=False
)


@pytest.fixture(autouse=True)
def _few_neutral_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [HistoryItem("It rained all day.", "Was it dry?"), HistoryItem("A table."), HISTORY[2]]
    monkeypatch.setattr("steerx_edge.learning.calibration.score.neutral_items", lambda _: items)


class RecordingEngine(Engine):
    """An engine that remembers the passes that a context contrast asks for."""

    def __init__(self, model: Llama) -> None:
        super().__init__(model)
        self.alone: list[ScoreRequest] = []
        self.beside: list[ScoreRequest] = []
        self.described: list[ScoreRequest] = []

    def run_many(
        self, jobs: Sequence[ScoreRequest], done: Callable[[int], None] | None = None
    ) -> list[ScoreResult]:
        arm = self.described if not jobs[0].score else self.beside
        arm = self.alone if jobs[0].expected else arm
        arm += jobs
        return super().run_many(jobs, done)

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces(tokens)).decode().strip()

    def arms(self) -> list[tuple[str, str, str]]:
        """For each item its text, and what stood before it with and without the history."""
        return [
            (self.text(one.response), self.text(one.context), self.text(other.context))
            for one, other in zip(self.beside, self.alone, strict=True)
        ]


@pytest.fixture
def tiny_llama(open_llama: Callable[..., Llama], tiny_f32: TinyModel) -> Llama:
    """With room for the model's own description, which takes many of a tiny model's tokens."""
    return open_llama(tiny_f32, n_ctx=1024)


@pytest.fixture
def tiny_chat_llama(open_llama: Callable[..., Llama], tiny_chat: TinyModel) -> Llama:
    return open_llama(tiny_chat, n_ctx=1024)


@pytest.fixture
def recording_engine(tiny_llama: Llama) -> RecordingEngine:
    return RecordingEngine(tiny_llama)


def only_entry(profile: Profile) -> Entry:
    (entry,) = profile.entries
    return entry


def contexts_of(
    engine: Engine, items: Sequence[HistoryItem], settings: Settings
) -> list[list[HistoryItem]]:
    """The in-context texts of each item."""
    found = {j: fold.in_context for fold in folds_of(engine, items, settings) for j in fold.members}
    return [[items[i] for i in found[j]] for j in range(len(items))]


def without_time(profile: Profile) -> Entry:
    return dataclasses.replace(only_entry(profile), created="2000-01-01T00:00:00Z")


def reference_arm(
    model: TinyModel, context: list[int], response: list[int], layers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) log p of the response, and (layer, T + 1, n_embd) rows from the last context token."""
    tokens = [*context, *response]
    first = len(context) - 1
    residual = model.forward(tokens).residual[list(layers), first:]
    return model.log_probabilities(tokens)[first:], residual


def reference_reply(model: TinyModel, context: list[int], n_tokens: int) -> list[int]:
    """The greedy continuation, up to where the model ends it."""
    tokens = list(context)
    for _ in range(n_tokens):
        token = int(np.argmax(model.forward(tokens).logits[-1]))
        if token == END_OF_TEXT:
            break
        tokens.append(token)
    return tokens[len(context) :]


def length_of(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors.astype(np.float64), axis=-1)


class TestAgainstTheReference:
    @pytest.mark.parametrize(
        "changes",
        [
            {"layers": (1, 3)},
            {"layers": (2,), "row": "at", "in_context": 2},
            {"layers": (1, 2, 3), "described": False},
            {"layers": (2,), "row": "at", "described": False},
            {"layers": (1, 3), "selection": "anchors"},
            {"layers": (2,), "selection": "anchors", "row": "at", "described": False},
            {"layers": (1, 2), "selection": "anchors", "threshold": 0.25, "min_anchors": 1},
            {"layers": (3,), "selection": "anchors", "min_anchors": 5, "max_items": 3}
            | {"threshold": 99.0},
            {"layers": (1, 2), "selection": "weighted"},
            {"layers": (2,), "selection": "weighted", "max_weight": 0.02, "row": "at"},
            {"layers": (3,), "selection": "weighted", "max_weight": 0.1, "described": False},
            {"layers": (1, 3), "contrast_methods": ("stylevector",)},
            {"layers": (2,), "contrast_methods": ("stylevector",), "row": "at", "described": False},
            {"layers": (2,), "contrast_methods": ("stylevector",), "selection": "anchors"}
            | {"row": "at", "min_anchors": 2},
            {"layers": (1, 2), "contrast_methods": ("stylevector",), "selection": "weighted"}
            | {"max_weight": 0.02},
        ],
        ids=str,
    )
    def test_every_figure_of_a_profile(
        self, tiny_engine: Engine, tiny_f32: TinyModel, changes: dict[str, Any]
    ) -> None:
        settings = dataclasses.replace(CONTRAST, **changes)
        entry = only_entry(learn(tiny_engine, HISTORY, settings))
        assert settings.layers is not None

        items = HISTORY[-(settings.max_items or 4) :]
        contexts = contexts_of(tiny_engine, items, settings)
        shift = 1 if settings.row == "at" else 0
        differences, lengths, effects, n_anchors = [], [], [], 0
        for item, in_context in zip(items, contexts, strict=True):
            response = tiny_engine.tokenize(item.response)
            prompt = tiny_engine.prompt(messages_for(item.request))
            (treated, treatment), (untreated, control), (_, described) = (
                reference_arm(tiny_f32, context, response, settings.layers)
                for context in (
                    tiny_engine.prompt(messages_for(item.request, history=in_context)),
                    prompt,
                    tiny_engine.prompt(
                        messages_for(item.request, description=entry.description.text)
                    ),
                )
            )
            nats = treated - untreated
            chosen = np.flatnonzero(nats > settings.threshold)
            if len(chosen) < settings.min_anchors:
                chosen = np.argsort(-nats)[: settings.min_anchors]
            weights = {
                "anchors": np.isin(np.arange(len(response)), chosen).astype(float),
                "weighted": np.minimum(np.maximum(nats, 1e-6), settings.max_weight),
                "all": np.ones(len(response)),
            }[settings.selection]
            rows = np.arange(len(response)) + shift
            if settings.contrast_methods == ("stylevector",):
                reply = reference_reply(tiny_f32, prompt, min(max(len(response), 16), 96))
                _, replied = reference_arm(tiny_f32, prompt, reply, settings.layers)
                ours, theirs = control, replied[:, np.arange(len(reply)) + shift].mean(axis=1)
            else:
                ours, theirs = treatment, np.average(control[:, rows], axis=1, weights=weights)
            if settings.described:
                ours = (ours + described) / 2
            differences.append(np.average(ours[:, rows], axis=1, weights=weights) - theirs)
            lengths.append(length_of(control[:, 1:]))
            effects.append(Effects(response, tiny_engine.pieces(response), nats))
            n_anchors += len(chosen)

        mean = np.mean(differences, axis=0)
        expected = mean / length_of(mean)[:, None]
        assert entry.layers == settings.layers
        assert entry.contrast_methods == settings.contrast_methods * len(settings.layers)
        np.testing.assert_allclose(entry.directions, expected, atol=1e-3)
        np.testing.assert_allclose(
            entry.norms, np.median(np.concatenate(lengths, axis=1), axis=1), rtol=1e-5
        )
        words = word_effects(effects)
        assert [word.word for word in entry.words] == [word.word for word in words]
        for word, same in zip(entry.words, words, strict=True):
            assert dataclasses.astuple(word)[1:] == pytest.approx(
                dataclasses.astuple(same)[1:], abs=1e-3
            )
        assert entry.counts == {
            "items": len(items),
            "items_given": 4,
            "tokens": sum(len(item.tokens) for item in effects),
            "anchors": n_anchors,
        }

    def test_directions_are_of_unit_length(self, tiny_engine: Engine) -> None:
        entry = only_entry(learn(tiny_engine, HISTORY, Settings(layers=(1, 2, 3), calibrate=False)))
        assert entry.directions.shape == (3, 64)
        np.testing.assert_allclose(length_of(entry.directions), 1, atol=1e-6)

    @pytest.mark.parametrize(("threshold", "share"), [(-np.inf, "all"), (np.inf, "fewest")])
    def test_the_threshold_decides_how_many_anchors(
        self, tiny_engine: Engine, threshold: float, share: str
    ) -> None:
        # An infinite threshold cannot be recorded in JSON; this one is as good.
        settings = dataclasses.replace(
            CONTRAST, threshold=float(np.clip(threshold, -1e6, 1e6)), min_anchors=2
        )
        counts = only_entry(learn(tiny_engine, HISTORY, settings)).counts
        assert counts["anchors"] == (counts["tokens"] if share == "all" else 2 * len(HISTORY))


class TestProfile:
    def test_what_is_recorded(self, tiny_engine: Engine) -> None:
        settings = Settings(
            selection="weighted",
            described=False,
            max_weight=2.5,
            strength=0.3,
            in_context=2,
            threshold=0.5,
            min_anchors=2,
            row="at",
            max_items=8,
            calibrate=False,
        )
        entry = only_entry(learn(tiny_engine, HISTORY, settings))
        assert entry.settings == {
            "contrast_methods": "stylevector",
            "selection": "weighted",
            "described": False,
            "estimate": "mean",
            "max_weight": 2.5,
            "logit_bias": True,
            "memory": "causal",
            "calibrate": False,
            "in_context": 2,
            "fold": 4,
            "threshold": 0.5,
            "min_anchors": 2,
            "row": "at",
            "sample": 24,
            "max_items": 8,
        }
        assert entry.strengths.tolist() == [np.float32(0.3)]
        assert entry.contrast_methods == ("stylevector",)
        assert entry.logit_bias is None
        assert entry.memory is None
        assert entry.gain is None
        assert entry.layers == default_layers(4, settings) == (2,)
        assert entry.positions == "generated"
        assert entry.model == tiny_engine.model_id
        assert entry.versions == {
            "steerx_edge": __version__,
            "llama_cpp_python": llama_cpp.__version__,
        }

    def test_all_rows_are_read_and_none_under_the_description_unless_told_otherwise(
        self, tiny_engine: Engine
    ) -> None:
        recorded = only_entry(learn(tiny_engine, HISTORY, FAST)).settings
        assert (recorded["selection"], recorded["described"]) == ("all", False)
        assert recorded["max_weight"] == 3.0
        assert "max_items" not in recorded

    def test_the_description_is_of_the_words_and_texts(self, tiny_engine: Engine) -> None:
        entry = only_entry(learn(tiny_engine, HISTORY))
        facts = style_facts([item.response for item in HISTORY])
        assert "You trail off with dots." in facts
        assert entry.words
        assert entry.description.origin == "statistics"
        assert entry.description.text == fixed_description(entry.words, facts)

    @pytest.mark.parametrize("settings", [Settings(), FAST], ids=str)
    def test_it_is_saved_and_loaded_unchanged(
        self, tiny_engine: Engine, tmp_path: Path, settings: Settings
    ) -> None:
        profile = learn(tiny_engine, HISTORY, settings)
        profile.save(tmp_path / "me.json")
        assert Profile.load(tmp_path / "me.json") == profile

    def test_it_holds_none_of_the_texts(self, tiny_engine: Engine, tmp_path: Path) -> None:
        profile = learn(tiny_engine, HISTORY)
        profile.save(tmp_path / "me.json")
        assert_holds_no_text((tmp_path / "me.json").read_text(encoding="utf-8"), HISTORY)

    @pytest.mark.parametrize("settings", [Settings(), FAST], ids=["calibrated", "as told"])
    def test_the_same_texts_give_the_same_profile_bit_for_bit(
        self, tiny_f32: TinyModel, open_llama: Callable[..., Llama], settings: Settings
    ) -> None:
        engine = Engine(open_llama(tiny_f32, n_ctx=1024))
        profiles = [
            learn(engine, HISTORY, settings),
            learn(engine, HISTORY, settings),
            learn(Engine(open_llama(tiny_f32, n_ctx=1024)), HISTORY, settings),
            learn(open_llama(tiny_f32, n_ctx=1024), HISTORY, settings),
        ]
        first = without_time(profiles[0])
        for profile in profiles[1:]:
            assert without_time(profile) == first
            assert only_entry(profile).directions.tobytes() == first.directions.tobytes()
            assert only_entry(profile).norms.tobytes() == first.norms.tobytes()

    def test_a_model_may_be_given_by_its_path(
        self, tiny_f32: TinyModel, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 1)  # threads, as of the other models here
        # The KV cache of a path's context is of half precision, unlike that of the fixture.
        by_path, by_engine = (
            only_entry(learn(model, HISTORY, dataclasses.replace(CONTRAST, threshold=-1e6)))
            for model in (tiny_f32.path, tiny_engine)
        )
        assert by_path.model == by_engine.model
        np.testing.assert_allclose(by_path.directions, by_engine.directions, atol=0.02)


def assert_holds_no_text(document: str, history: Sequence[HistoryItem]) -> None:
    """No five words in a row, which is more than words and a description share by chance."""
    for item in history:
        for text in (item.response, item.request):
            words = text.split()
            for begin in range(len(words) - 4):
                assert " ".join(words[begin : begin + 5]) not in document


GAIN = Gain(0.5, 0.25, 0.75, len(HISTORY))


class TestCalibrated:
    def test_what_calibration_is_given_and_what_the_profile_takes_of_it(
        self, tiny_engine: Engine, tiny_f32: TinyModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[HeldOutScores] = []
        in_prompts: list[Scored] = []
        more = Gain(0.1, 0.05, 0.15, len(HISTORY))
        gate = Gate(np.ones(64, np.float32), 0.4)

        def chosen(
            scores: HeldOutScores, *, prompted: Sequence[Scored], done: Callable[[int, int], None]
        ) -> Calibration:
            given.append(scores)
            in_prompts.extend(prompted)
            done(1, 1)
            # The upper block is named first: a profile has them in increasing order.
            setting = Setting(((3, 0.25), (0, 0.5)), 0.75, 0.3)
            return Calibration(setting, GAIN, Setting(((3, 0.125),), 0.5, 0.2), more, gate)

        monkeypatch.setattr("steerx_edge.learning.learned.calibrate", chosen)
        settings = Settings(layers=(1, 3), contrast_methods=("stylevector", "context-contrast"))
        entry = only_entry(learn(tiny_engine, HISTORY, settings))

        (scores,) = given
        assert scores.engine is tiny_engine
        texts, folds, candidates = scores.texts, scores.folds, scores.candidates
        counts, rows = scores.counts, scores.rows
        read = folds_of(tiny_engine, HISTORY, settings)
        assert folds == [fold.members for fold in read]
        places = [(candidate.contrast_method, candidate.layer) for candidate in candidates]
        assert places == [(s, layer) for s in settings.contrast_methods for layer in (1, 3)]
        seen = {j: set(fold.in_context) for fold in read for j in fold.members}
        assert seen == {0: {1}, 1: {0}, 2: {3}, 3: {2}}
        assert [candidate.contexts for candidate in candidates] == [{}, {}, seen, seen]
        used = np.zeros((len(folds), tiny_f32.n_vocab))
        expected = np.zeros_like(used)
        for number, fold in enumerate(folds):
            for j in fold:
                context = tiny_engine.prompt(messages_for(HISTORY[j].request))
                response = tiny_engine.tokenize(HISTORY[j].response)
                assert (texts[j].context, texts[j].response) == (context, response)
                logits = tiny_f32.forward([*context, *response]).logits[len(context) - 1 : -1]
                expected[number] += np.exp(log_softmax(logits)).sum(axis=0)
                used[number] += np.bincount(response, minlength=tiny_f32.n_vocab)
        expected[:, tiny_engine.end_tokens] = 0  # no text of theirs holds these
        assert counts is not None
        np.testing.assert_array_equal(counts.used, used)
        np.testing.assert_allclose(counts.expected, expected, atol=1e-4)

        values = np.log((used.sum(axis=0) + SMOOTHING) / (expected.sum(axis=0) + SMOOTHING))
        kept = np.flatnonzero(np.abs(values) >= 0.1)
        assert entry.logit_bias is not None
        assert entry.logit_bias.tokens.tolist() == kept.tolist()
        np.testing.assert_allclose(entry.logit_bias.values, values[kept], atol=1e-4)
        assert entry.logit_bias.strength == 0.75
        assert rows is not None
        assert entry.memory is not None
        assert entry.memory.memory is not None
        found = dataclasses.replace(entry.memory.memory, ledger=None)
        assert found.equals(rows.memory().sorted())
        assert (entry.memory.strength, entry.memory.level) == (0.3, "causal")
        assert entry.gate is not None
        assert entry.gate.threshold == gate.threshold
        np.testing.assert_array_equal(entry.gate.direction, gate.direction)
        assert entry.gain == GAIN
        assert entry.layers == (1, 3)
        assert entry.contrast_methods == ("stylevector", "context-contrast")
        assert entry.strengths.tolist() == [0.5, 0.25]
        for place, candidate in enumerate((candidates[0], candidates[3])):
            np.testing.assert_array_equal(entry.directions[place], candidate.direction())
            assert entry.norms[place] == np.float32(candidate.norm)
        assert entry.with_history == WithHistory([0, 0.125], 0.5, 0.2, more)

        # With texts in the prompt: the in-context texts of the fold, under the logit biases of
        # other folds.
        for number, fold in enumerate(folds):
            biases = counts.tried(without=number)
            for j in fold:
                (other,) = seen[j]
                context = tiny_engine.prompt(
                    messages_for(HISTORY[j].request, history=[HISTORY[other]])
                )
                logits = tiny_f32.forward([*context, *texts[j].response]).logits
                for logit_bias, scored in zip(biases, in_prompts[j].biased, strict=True):
                    log_p = log_softmax(logits[len(context) - 1 : -1] + logit_bias)
                    own = log_p[np.arange(len(log_p)), texts[j].response]
                    np.testing.assert_allclose(scored, own, atol=5e-4)
                (result,) = tiny_engine.run_many(
                    [ScoreRequest(context, texts[j].response, final=True)]
                )
                np.testing.assert_allclose(in_prompts[j].final, asked_for(result.final), atol=0.01)

    @pytest.mark.parametrize(
        "setting",
        [Setting(), Setting((), 0.5), Setting(((1, 0.5),)), Setting((), 0.0, 0.3)],
        ids=str,
    )
    def test_what_was_not_chosen_is_not_carried(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, setting: Setting
    ) -> None:
        monkeypatch.setattr(
            "steerx_edge.learning.learned.calibrate",
            lambda *_, **__: Calibration(setting, Gain(0.0, 0.0, 0.0, 4)),
        )
        entry = only_entry(learn(tiny_engine, HISTORY, Settings(layers=(1, 3))))
        assert entry.strengths.tolist() == ([0.5] if setting.strengths else [0])
        assert entry.layers == ((3,) if setting.strengths else (1,))
        assert (entry.logit_bias is not None) == (setting.logit_bias > 0)
        assert bool(entry.steering().logit_bias) == (setting.logit_bias > 0)
        assert (entry.memory is not None) == (setting.memory > 0)

    @pytest.mark.parametrize("level", ["shared", "causal", "all", "none"])
    def test_a_profile_has_the_memory_that_was_asked_for(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch, level: Any
    ) -> None:
        given: list[HeldOutScores] = []

        def chosen(scores: HeldOutScores, **_: Any) -> Calibration:
            given.append(scores)
            return Calibration(Setting((), 0.0, 0.3 if scores.rows else 0.0), GAIN)

        monkeypatch.setattr("steerx_edge.learning.learned.calibrate", chosen)
        entry = only_entry(learn(tiny_engine, HISTORY, Settings(memory=level)))
        assert entry.settings["memory"] == level
        assert (given[0].rows is None) == (entry.memory is None) == (level == "none")
        if entry.memory is not None:
            assert entry.memory.level == level
            # Each token of the texts, and their ends.
            assert entry.memory.rows == entry.counts["tokens"] + len(HISTORY)

    @pytest.mark.parametrize(("n_requests", "is_gated"), [(2, False), (3, True)])
    def test_there_is_a_gate_where_most_texts_answer_a_request(
        self,
        tiny_engine: Engine,
        monkeypatch: pytest.MonkeyPatch,
        n_requests: int,
        *,
        is_gated: bool,
    ) -> None:
        given: list[HeldOutScores] = []

        def chosen(scores: HeldOutScores, **_: Any) -> Calibration:
            given.append(scores)
            return Calibration(Setting(), GAIN)

        monkeypatch.setattr("steerx_edge.learning.learned.calibrate", chosen)
        history = [
            dataclasses.replace(item, request="Write a text." if place < n_requests else "")
            for place, item in enumerate(HISTORY)
        ]
        learn(tiny_engine, history)
        assert [scores.gated for scores in given] == [is_gated]

    def test_a_memory_that_is_only_for_prompts_with_texts_is_carried(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        beside = Calibration(Setting((), 0.5), GAIN, Setting((), 0.0, 0.2), GAIN)
        monkeypatch.setattr("steerx_edge.learning.learned.calibrate", lambda *_, **__: beside)
        entry = only_entry(learn(tiny_engine, HISTORY, Settings()))
        assert entry.memory is not None
        assert entry.memory.strength == 0
        assert entry.with_history is not None
        assert entry.with_history.memory == 0.2


@pytest.mark.parametrize(
    ("n_items", "most", "places"),
    [
        (10, 1, [9]),
        (10, 3, [2, 5, 9]),
        (10, 5, [1, 3, 5, 7, 9]),
        (4, 4, [0, 1, 2, 3]),
        (3, 24, [0, 1, 2]),
    ],
)
def test_a_sample_is_spread_over_all_texts_and_holds_the_last(
    n_items: int, most: int, places: list[int]
) -> None:
    assert sampled(n_items, most) == places


class TestFurtherTexts:
    """Two of the four texts are the sample: the second and the last."""

    SETTINGS = Settings(sample=2, layers=(2,))

    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("steerx_edge.learning.learned.CHUNK", 1)
        monkeypatch.setattr(
            "steerx_edge.learning.learned.calibrate",
            lambda *_, **__: Calibration(Setting(((0, 0.1),), 0.5, 0.3), GAIN),
        )
        monkeypatch.setattr(
            "steerx_edge.learning.learned.recalibrate", lambda _, calibration: calibration
        )

    def test_they_are_read_with_texts_of_the_sample_in_their_context(
        self, tiny_engine: Engine, tiny_f32: TinyModel
    ) -> None:
        further, sample = [HISTORY[0], HISTORY[2]], [HISTORY[1]]
        read = read_further(tiny_engine, further, sample, self.SETTINGS)
        for item, found in zip(further, read, strict=True):
            response = tiny_engine.tokenize(item.response)
            alone = tiny_engine.prompt(messages_for(item.request))
            treated, _ = reference_arm(
                tiny_f32,
                tiny_engine.prompt(messages_for(item.request, history=sample)),
                response,
                (1,),
            )
            untreated, _ = reference_arm(tiny_f32, alone, response, (1,))
            np.testing.assert_allclose(found.effects.nats, treated - untreated, atol=5e-4)
            logits = tiny_f32.forward([*alone, *response]).logits[len(alone) - 1 : -1]
            expected = np.exp(log_softmax(logits)).sum(axis=0)
            np.testing.assert_allclose(found.expected, expected, atol=1e-3)
            (result,) = tiny_engine.run_many([ScoreRequest(alone, response, final=True)])
            np.testing.assert_allclose(found.final, asked_for(result.final), atol=1e-4)

    def test_they_go_into_words_logit_bias_and_memory_and_not_into_directions(
        self, tiny_engine: Engine
    ) -> None:
        first: list[Profile] = []
        whole = only_entry(learn(tiny_engine, HISTORY, self.SETTINGS, usable_profile=first.append))
        (before,) = (only_entry(profile) for profile in first)
        alone = only_entry(learn(tiny_engine, [HISTORY[1], HISTORY[3]], self.SETTINGS))
        assert before.directions.tobytes() == alone.directions.tobytes()
        assert whole.directions.tobytes() == alone.directions.tobytes()
        assert (before.counts["items"], whole.counts["items"]) == (2, 4)
        assert before.words != whole.words
        assert before.memory is not None
        assert whole.memory is not None
        assert before.memory.rows == before.counts["tokens"] + 2
        assert whole.memory.rows == whole.counts["tokens"] + 4
        # The counts behind the logit bias are those of all texts, whatever the sample was.
        together = only_entry(learn(tiny_engine, HISTORY, Settings(layers=(2,))))
        assert whole.logit_bias is not None
        assert together.logit_bias is not None
        assert whole.logit_bias.tokens.tolist() == together.logit_bias.tokens.tolist()
        np.testing.assert_allclose(whole.logit_bias.values, together.logit_bias.values, atol=1e-3)

    def test_the_strength_of_the_memory_is_chosen_anew(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "steerx_edge.learning.learned.recalibrate",
            lambda scores, calibration: dataclasses.replace(
                calibration, setting=Setting((), 0.0, scores.rows.n_texts / 10)
            ),
        )
        entry = only_entry(learn(tiny_engine, HISTORY, self.SETTINGS))
        assert entry.memory is not None
        assert entry.memory.strength == pytest.approx(0.4)

    def test_no_more_are_read_once_the_time_is_over(self, tiny_engine: Engine) -> None:
        entry = only_entry(learn(tiny_engine, HISTORY, self.SETTINGS, seconds=0))
        assert entry.counts["items"] == 2
        assert entry.counts["items_given"] == 4

    def test_those_that_were_read_are_not_read_again(
        self, tiny_llama: Llama, tmp_path: Path
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        whole = without_time(learn(engine, HISTORY, self.SETTINGS))
        n_calls = engine.n_calls
        engine.n_calls, engine.last_call = 0, n_calls - 1  # in the second of two further texts
        with pytest.raises(KeyboardInterrupt):
            learn(engine, HISTORY, self.SETTINGS, resume=tmp_path)
        (folder,) = tmp_path.iterdir()
        assert [path.name for path in sorted(folder.glob("further-*"))] == ["further-0.npz"]
        engine.n_calls, engine.last_call = 0, 10**9
        resumed = without_time(learn(engine, HISTORY, self.SETTINGS, resume=tmp_path))
        # Two folds of the sample, and the first further text, each read alone and beside others;
        # and the model's own replies.
        assert engine.n_calls == n_calls - 2 * 3 - 1
        assert resumed == whole
        assert list(tmp_path.iterdir()) == []

    def test_their_step_is_told(self, tiny_engine: Engine) -> None:
        calls: list[tuple[str, int, int]] = []
        learn(tiny_engine, HISTORY, self.SETTINGS, progress=lambda *call: calls.append(call))
        assert [call for call in calls if call[0] == "further texts"] == [
            ("further texts", 0, 2),
            ("further texts", 1, 2),
        ]


class TestHistory:
    @pytest.mark.parametrize(
        ("history", "n"),
        [([], 0), (HISTORY[:1], 1), ([HistoryItem(" \n", "Write."), HISTORY[0]], 1)],
    )
    def test_too_few_texts_are_an_error(
        self, tiny_engine: Engine, history: list[HistoryItem], n: int
    ) -> None:
        with pytest.raises(HistoryError, match=f"There are {n} different texts .* at least 2 are"):
            learn(tiny_engine, history)

    def test_two_texts_are_enough(self, tiny_engine: Engine) -> None:
        for settings in (Settings(), FAST):
            entry = only_entry(learn(tiny_engine, HISTORY[:2], settings))
            assert entry.counts["items"] == 2

    def test_of_a_long_history_the_last_texts_are_used(self, tiny_engine: Engine) -> None:
        entry = without_time(
            learn(tiny_engine, HISTORY, dataclasses.replace(CONTRAST, max_items=3))
        )
        last = without_time(
            learn(tiny_engine, HISTORY[-3:], dataclasses.replace(CONTRAST, max_items=3))
        )
        assert entry.counts == {**last.counts, "items_given": 4}
        assert last.counts["items"] == last.counts["items_given"] == 3
        assert dataclasses.replace(entry, counts=last.counts) == last
        first = without_time(
            learn(tiny_engine, HISTORY[:3], dataclasses.replace(CONTRAST, max_items=3))
        )
        assert not np.allclose(first.directions, last.directions, atol=0.01)

    def test_items_without_text_do_not_count(self, tiny_engine: Engine) -> None:
        blank = HistoryItem(" \n", "Write about nothing.")
        settings = dataclasses.replace(CONTRAST, max_items=4)
        entry = without_time(learn(tiny_engine, [HISTORY[0], blank, *HISTORY[1:], blank], settings))
        plain = without_time(learn(tiny_engine, HISTORY, settings))
        assert entry.counts == {**plain.counts, "items_given": 6}
        assert dataclasses.replace(entry, counts=plain.counts) == plain

    def test_of_equal_texts_the_last_one_is_learned_from(self, tiny_engine: Engine) -> None:
        spaced = HistoryItem(f" {HISTORY[1].response.replace(' ', '  ', 1)}\n", "Another request.")
        settings = dataclasses.replace(CONTRAST, max_items=4)
        copies = [HISTORY[1], spaced, HISTORY[0], *HISTORY]
        entry = without_time(learn(tiny_engine, copies, settings))
        plain = without_time(learn(tiny_engine, HISTORY, settings))
        assert entry.counts == {**plain.counts, "items_given": 7}
        assert dataclasses.replace(entry, counts=plain.counts) == plain
        with pytest.raises(HistoryError, match="There are 1 different texts"):
            learn(tiny_engine, copies[:2])

    @pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat template"])
    def test_long_texts_and_requests_are_cut(
        self, tiny_engine: Engine, tiny_chat_engine: Engine, *, chat: bool
    ) -> None:
        engine = tiny_chat_engine if chat else tiny_engine
        long = "down the rabbit hole again and again, so very tired of it all... " * 60
        history = [
            HistoryItem(f"First {long}", f"Write about {long}"),
            HistoryItem(f"Then {long}", f"Read about {long}"),
            HistoryItem(f"Last {long}"),
            *HISTORY,
        ]
        counts = only_entry(learn(engine, history, FAST)).counts
        assert counts["items"] == 7
        uncut = sum(len(engine.tokenize(item.response)) for item in HISTORY)
        share = engine.analysis.n_ctx // 8
        # One token more at most: a text is tokenized anew once it is cut.
        assert counts["tokens"] == pytest.approx(uncut + 3 * share, abs=3)

    def test_a_cut_text_is_how_the_text_begins(self, recording_engine: RecordingEngine) -> None:
        long = HistoryItem("Alice " + "was so very tired of it " * 40)
        learn(recording_engine, [long, *HISTORY], CONTRAST)
        share = recording_engine.analysis.n_ctx // 8
        assert (
            list(recording_engine.alone[0].response)
            == (recording_engine.tokenize(long.response)[:share])
        )

    @pytest.mark.parametrize(
        "wrong",
        [
            {"max_items": 0},
            {"max_items": -2},
            {"min_anchors": 0},
            {"in_context": 0},
            {"layers": ()},
            {"contrast_methods": ()},
            {"contrast_methods": ("caa",)},
            {"contrast_methods": "stylevector"},
            {"contrast_methods": ("stylevector", "stylevector")},
            {"selection": "some"},
            {"selection": None},
            {"max_weight": 0.0},
            {"max_weight": -1.0},
            {"max_weight": float("inf")},
            {"max_weight": float("nan")},
            {"memory": "some"},
            {"memory": None},
            {"sample": 1},
            {"fold": 0},
            {"row": "before"},
            {"strength": -1.0},
            {"strength": float("nan")},
            {"threshold": float("inf")},
        ],
        ids=str,
    )
    def test_settings_that_make_no_sense_are_an_error(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        with pytest.raises(SteerxError, match=f"setting {name} cannot be"):
            Settings(**wrong)


def in_folds(*folds: Sequence[HistoryItem]) -> list[HistoryItem]:
    """A history that is told apart into these folds, all of one length."""
    return [item for together in zip(*folds, strict=True) for item in together]


class TestInContextTexts:
    FIRST = (
        HistoryItem("Tea in the green kettle, with a spoon of sugar.", "tea kettle sugar"),
        *(HistoryItem(f"Something else, {word}.", word) for word in ("alpha", "beta", "gamma")),
    )
    PARTNER = (
        HistoryItem("Nothing of the sort.", "zeppelin"),
        HistoryItem("A kettle of tea.", "kettle tea"),
        HistoryItem("More sugar, and no milk.", "sugar"),
        HistoryItem("Trains are late.", "travel"),
    )
    OTHERS = tuple(
        [HistoryItem(f"Tea, {n} kettles and sugar, no {end}.", "tea kettle sugar") for n in "1234"]
        for end in ("milk", "cream")
    )
    ITEMS = tuple(in_folds(FIRST, PARTNER, *OTHERS))

    @pytest.mark.parametrize(
        ("k", "of_first"),
        [(1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (4, [0, 3, 2, 1]), (99, [0, 3, 2, 1])],
    )
    def test_they_are_the_k_most_relevant_of_the_partner_and_the_best_is_last(
        self, tiny_engine: Engine, k: int, of_first: list[int]
    ) -> None:
        first, *_ = contexts_of(tiny_engine, self.ITEMS, Settings(in_context=k))
        assert first == [self.PARTNER[i] for i in of_first]

    @pytest.mark.parametrize("k", [1, 2, 4, 99])
    def test_an_item_is_never_in_its_own_context(self, tiny_engine: Engine, k: int) -> None:
        in_context = contexts_of(tiny_engine, self.ITEMS, Settings(in_context=k))
        assert len(in_context) == len(self.ITEMS)
        for item, others in zip(self.ITEMS, in_context, strict=True):
            assert item not in others
            assert len(others) == len(set(others)) == min(k, 4)

    @pytest.mark.parametrize(
        ("n_items", "fold", "partners"),
        [
            (2, 4, [1, 0]),
            (3, 1, [1, 0, 0]),
            (5, 4, [1, 0, 3, 2]),
            (8, 4, [1, 0, 3, 2]),
            (17, 4, [1, 0, 3, 2, 0]),
            (9, 9, [1, 0, 3, 2]),
            (14, 2, [1, 0, 3, 2, 5, 4, 0]),
        ],
    )
    def test_folds_hold_each_item_once_and_have_one_other_fold_as_their_context(
        self, tiny_engine: Engine, n_items: int, fold: int, partners: list[int]
    ) -> None:
        items = [HistoryItem(f"Text {n}.", "Write.") for n in range(n_items)]
        folds = folds_of(tiny_engine, items, Settings(fold=fold, in_context=3))
        assert sorted(j for each in folds for j in each.members) == list(range(n_items))
        assert len(folds) == len(partners)
        for each, partner in zip(folds, partners, strict=True):
            others = folds[partner].members
            assert set(each.in_context) <= set(others)
            assert len(each.in_context) == len(set(each.in_context)) == min(3, len(others))

    def test_what_is_made_of_the_other_pairs_has_not_seen_a_fold(self, tiny_engine: Engine) -> None:
        items = [HistoryItem(f"Text {n}.", "Write.") for n in range(24)]
        folds = folds_of(tiny_engine, items, Settings(fold=4))
        for number, fold in enumerate(folds):
            for other in (each for n, each in enumerate(folds) if n // 2 != number // 2):
                assert not set(other.in_context) & set(fold.members)

    def test_an_item_without_a_request_finds_what_is_like_its_text(
        self, tiny_engine: Engine
    ) -> None:
        items = [HistoryItem("Sugar in the tea."), *self.ITEMS[1:]]
        first, *_ = contexts_of(tiny_engine, items, Settings(in_context=2))
        assert {item.request for item in first} == {"kettle tea", "sugar"}

    def test_they_leave_room_for_the_item(self, tiny_engine: Engine) -> None:
        folds = [
            [HistoryItem(f"{name} " + "ran close by her. " * 6) for name in names]
            for names in ("ABCDEFGH", "IJKLMNOP", "ABCDEFGH", "IJKLMNOP")
        ]
        room = tiny_engine.analysis.n_ctx * 3 // 8
        found = folds_of(tiny_engine, in_folds(*folds), Settings(in_context=7, fold=8))
        for number, fold in enumerate(found):
            items = in_folds(*folds)
            in_context = [items[i] for i in fold.in_context]
            prompt = tiny_engine.prompt(messages_for("", history=in_context))
            next_one = next(other for other in folds[number ^ 1] if other not in in_context)
            longer = tiny_engine.prompt(messages_for("", history=[next_one, *in_context]))
            assert 2 <= len(in_context) < 7
            assert len(prompt) <= room < len(longer)

    def test_one_in_context_text_is_there_however_long(self, tiny_engine: Engine) -> None:
        items = [HistoryItem(f"{name} " + "ran close by her. " * 60) for name in "ABCDEFGH"]
        for in_context in contexts_of(tiny_engine, items, Settings(in_context=2, fold=2)):
            assert len(in_context) == 1

    def test_the_treatment_arm_has_the_in_context_texts_and_not_the_item(
        self, recording_engine: RecordingEngine
    ) -> None:
        learn(recording_engine, HISTORY, CONTRAST)
        arms = recording_engine.arms()
        assert len(arms) == len(HISTORY)
        for j, (text, treatment, control) in enumerate(arms):
            item, beside = HISTORY[j], HISTORY[j ^ 1]
            assert text == item.response
            assert item.response not in treatment
            assert item.request in treatment
            for other in HISTORY:
                assert other.response not in control
                assert (other.response in treatment) == (other == beside)

    def test_the_description_takes_the_place_of_the_history(
        self, recording_engine: RecordingEngine
    ) -> None:
        learn(recording_engine, HISTORY, dataclasses.replace(CONTRAST, described=False))
        assert recording_engine.described == []
        entry = only_entry(learn(recording_engine, HISTORY, CONTRAST))
        for item, job in zip(HISTORY, recording_engine.described, strict=True):
            assert job.layers == entry.layers
            assert list(job.response) == recording_engine.tokenize(item.response)
            context = recording_engine.text(job.context)
            assert entry.description.text in context
            assert item.request in context
            assert not any(other.response in context for other in HISTORY)

    def test_a_text_written_twice_is_not_in_its_own_context(
        self, recording_engine: RecordingEngine
    ) -> None:
        again = dataclasses.replace(HISTORY[0], response=HISTORY[0].response.upper())
        # In one fold, and then in two that are each other's context.
        for given in ([*HISTORY, again], [again, *HISTORY]):
            recording_engine.alone.clear()
            recording_engine.beside.clear()
            learn(recording_engine, given, CONTRAST)
            passes = [*recording_engine.alone, *recording_engine.beside]
            assert len(passes) == 2 * len(HISTORY)
            for job in passes:
                text = recording_engine.text(job.response).casefold()
                assert text not in recording_engine.text(job.context).casefold()

    def test_where_the_model_says_nothing_there_is_no_stylevector(
        self, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiny_engine.analysis, "generate_many", lambda jobs: [[] for _ in jobs])
        alone = dataclasses.replace(CONTRAST, described=False, contrast_methods=("stylevector",))
        with pytest.raises(SteerxError, match="make no difference to the model's residual stream"):
            learn(tiny_engine, HISTORY, alone)
        both = dataclasses.replace(alone, contrast_methods=("stylevector", "context-contrast"))
        for settings in (both, dataclasses.replace(both, calibrate=True, logit_bias=True)):
            entry = only_entry(learn(tiny_engine, HISTORY, settings))
            assert set(entry.contrast_methods) == {"context-contrast"}


class TestLayers:
    @pytest.mark.parametrize("layers", [(0,), (0, 1), (4,), (1, 4), (-1,), (2, 1), (1, 1)])
    def test_blocks_that_cannot_be_steered_are_an_error(
        self, tiny_engine: Engine, layers: tuple[int, ...]
    ) -> None:
        with pytest.raises(ModelError, match=r"Layers .* cannot be steered: .*, 1 to 3\."):
            learn(tiny_engine, HISTORY, Settings(layers=layers))

    def test_no_layers_are_an_error(self) -> None:
        with pytest.raises(ModelError, match=r"Layers \[\] cannot be steered"):
            check_layers([], 4)

    @pytest.mark.parametrize("layers", [(1,), (3,), (1, 3), (1, 2, 3)])
    def test_all_but_the_first_block_can_be_steered(self, layers: tuple[int, ...]) -> None:
        check_layers(layers, 4)

    @pytest.mark.parametrize(
        ("n_layer", "one", "candidates"),
        [
            (2, (1,), (1,)),
            (3, (2,), (1, 2)),
            (4, (2,), (2, 3)),
            (30, (20,), (15, 24)),
            (32, (21,), (16, 25)),
        ],
    )
    def test_two_thirds_up_or_what_calibration_chooses_unless_told_otherwise(
        self, n_layer: int, one: tuple[int, ...], candidates: tuple[int, ...]
    ) -> None:
        assert default_layers(n_layer, FAST) == one
        assert default_layers(n_layer, Settings()) == candidates
        check_layers(candidates, n_layer)


class SilentEngine(Engine):
    """A model that has nothing to say to some requests."""

    silent_at: tuple[int, ...] = ()

    @property
    def analysis(self) -> AnalysisContext:
        context = super().analysis
        engine, generate = self, AnalysisContext.generate_many

        def generate_many(jobs: Sequence[GenerateRequest]) -> list[list[int]]:
            replies = generate(context, jobs)
            return [[] if j in engine.silent_at else each for j, each in enumerate(replies)]

        context.generate_many = generate_many  # type: ignore[method-assign]
        return context


class TestWithoutReplies:
    @pytest.fixture
    def engine(self, tiny_llama: Llama) -> SilentEngine:
        return SilentEngine(tiny_llama)

    def test_a_text_without_a_reply_does_not_count(self, engine: SilentEngine) -> None:
        # Of the rows of its own text alone: a description would be of all texts.
        settings = Settings(contrast_methods=("stylevector",), described=False, calibrate=False)
        whole = only_entry(learn(engine, HISTORY, settings))
        engine.silent_at = (1, 3)
        some = only_entry(learn(engine, HISTORY, settings))
        # Whatever stands at the places of the others, these two decide.
        odd = [HISTORY[0], HistoryItem("Something else."), HISTORY[2], HistoryItem("And else.")]
        others = only_entry(learn(engine, odd, settings))
        assert not np.allclose(whole.directions, some.directions, atol=0.01)
        np.testing.assert_allclose(some.directions, others.directions, atol=1e-4)

    @pytest.mark.parametrize("calibrate", [True, False], ids=["calibrated", "as told"])
    def test_without_any_the_contrast_method_is_left_out(
        self, engine: SilentEngine, *, calibrate: bool
    ) -> None:
        engine.silent_at = tuple(range(len(HISTORY)))
        settings = Settings(
            contrast_methods=("stylevector", "context-contrast"), calibrate=calibrate
        )
        entry = only_entry(learn(engine, HISTORY, settings))
        assert set(entry.contrast_methods) == {"context-contrast"}
        if not calibrate:
            plain = dataclasses.replace(CONTRAST, described=False)
            expected = only_entry(learn(engine, HISTORY, plain))
            assert entry.directions.tobytes() == expected.directions.tobytes()

    def test_without_any_contrast_method_there_is_an_error(self, engine: SilentEngine) -> None:
        engine.silent_at = tuple(range(len(HISTORY)))
        with pytest.raises(SteerxError, match="no direction to steer in"):
            learn(engine, HISTORY, Settings(contrast_methods=("stylevector",)))


class TestResuming:
    @pytest.mark.parametrize(
        ("settings", "n_whole", "last_call", "n_spared"),
        [
            pytest.param(CONTRAST, 9, 3, 0, id="before a fold is complete"),
            pytest.param(CONTRAST, 9, 6, 4, id="within the folds"),
            pytest.param(CONTRAST, 9, 8, 8, id="in the contrasts"),
            pytest.param(Settings(), None, 7, 6, id="to be calibrated"),
            pytest.param(Settings(), None, 10, 9, id="in the calibration"),
        ],
    )
    def test_what_was_found_is_not_computed_again(
        self,
        tiny_llama: Llama,
        tmp_path: Path,
        settings: Settings,
        n_whole: int | None,
        last_call: int,
        n_spared: int,
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        whole = without_time(learn(engine, HISTORY, settings))
        n_calls = engine.n_calls
        assert n_whole in (n_calls, None)  # four folds, twice, and the contrasts
        engine.n_calls, engine.last_call = 0, last_call
        with pytest.raises(KeyboardInterrupt):
            learn(engine, HISTORY, settings, resume=tmp_path)
        engine.n_calls, engine.last_call = 0, 10**9
        resumed = without_time(learn(engine, HISTORY, settings, resume=tmp_path))
        assert engine.n_calls == n_calls - n_spared
        assert resumed == whole
        assert resumed.directions.tobytes() == whole.directions.tobytes()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("history", "settings"),
        [
            (HISTORY[::-1], FAST),
            (HISTORY, dataclasses.replace(FAST, threshold=0.5)),
            (HISTORY[1:], FAST),
        ],
    )
    def test_other_work_starts_anew(
        self,
        tiny_llama: Llama,
        tmp_path: Path,
        history: Sequence[HistoryItem],
        settings: Settings,
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        engine.last_call = 6
        with pytest.raises(KeyboardInterrupt):
            learn(engine, HISTORY, FAST, resume=tmp_path)
        engine.n_calls, engine.last_call = 0, 10**9
        fresh = without_time(learn(engine, history, settings))
        n_calls, engine.n_calls = engine.n_calls, 0
        assert without_time(learn(engine, history, settings, resume=tmp_path)) == fresh
        assert engine.n_calls == n_calls


class TestProgress:
    def test_each_step_has_counts_of_its_own(self, tiny_engine: Engine) -> None:
        calls: list[tuple[str, int, int]] = []
        learn(tiny_engine, HISTORY, Settings(), progress=lambda *call: calls.append(call))
        steps = [what for what, _ in itertools.groupby(call[0] for call in calls)]
        assert steps == ["effects", "description", "stylevector", "calibration", "done"]
        for step in steps:
            done = [call[1] for call in calls if call[0] == step]
            (of,) = {call[2] for call in calls if call[0] == step}
            assert done == sorted(set(done)), step
            assert done[0] >= 0
            assert done[-1] <= of
        assert [call for call in calls if call[0] == "effects"] == [
            ("effects", done, 8) for done in range(8)
        ]
        # Nothing, and a contrast method on two layers; then those around the best, each on four
        # texts and three neutral ones; and what is written.
        assert [call[1:] for call in calls if call[0] == "calibration"][-1] == (43, 43)
        assert calls[-1] == ("done", 1, 1)

    def test_without_calibration_there_is_no_such_step(self, tiny_engine: Engine) -> None:
        calls: list[tuple[str, int, int]] = []
        learn(tiny_engine, HISTORY, CONTRAST, progress=lambda *call: calls.append(call))
        assert calls == [
            *(("effects", done, 8) for done in range(8)),
            *((step, 0, 1) for step in ("description", "context-contrast")),
            ("done", 1, 1),
        ]


MANNER = (
    HistoryItem(
        "lol i just missed the bus again... my own fault tho, i was watching cat videos... lol",
        "How was your morning?",
    ),
    HistoryItem(
        "it was ok i guess... the pizza was cold but the band was so good lol... u should come",
        "How was the party last night?",
    ),
    HistoryItem(
        "nah i cant... gotta finish that essay lol... its due tmrw and i have like two lines",
        "Do you want to go to the beach today?",
    ),
    HistoryItem(
        "omg yes... that ending lol... i didnt see it coming at all, gonna watch it again",
        "Did you like the film?",
    ),
)
HELD_OUT = HistoryItem(
    "lol yeah... i made soup but i burned it... gonna order something instead lol",
    "What did you have for dinner?",
)


@pytest.fixture(scope="module")
def real_profile(smollm2_engine: Engine) -> Profile:
    return learn(smollm2_engine, MANNER, CONTRAST)


class TestOnARealModel:
    def test_it_steers_towards_the_persons_manner(
        self, smollm2_engine: Engine, real_profile: Profile
    ) -> None:
        entry = real_profile.entry_for(smollm2_engine.model_id)
        context = smollm2_engine.prompt(messages_for(HELD_OUT.request))
        response = smollm2_engine.tokenize(HELD_OUT.response)
        steered, unsteered, away = (
            smollm2_engine.score(
                context,
                response,
                interventions=(Add(entry.layers, entry.vectors(strength)),),
            ).mean()
            for strength in (1, 0, -1)
        )
        assert steered > unsteered + 0.05
        assert steered > away + 0.1

    def test_its_words_are_the_persons(self, real_profile: Profile) -> None:
        names = {word.word for word in only_entry(real_profile).words}
        assert {"lol", "..."} <= names

    def test_its_description_may_be_used(self, real_profile: Profile) -> None:
        entry = only_entry(real_profile)
        facts = style_facts([item.response for item in MANNER])
        assert "You write without capital letters." in facts
        if entry.description.origin == "model":
            assert why_unusable(entry.description.text, entry.words, facts) is None
        else:
            assert entry.description.origin == "statistics"
            assert entry.description.text == fixed_description(entry.words, facts)

    def test_it_holds_none_of_the_texts(self, real_profile: Profile, tmp_path: Path) -> None:
        real_profile.save(tmp_path / "me.json")
        assert_holds_no_text((tmp_path / "me.json").read_text(encoding="utf-8"), MANNER)
