"""`learn` as a whole: a history in, a profile out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.errors import ModelError, SteerxError
from steerx_edge.history.item import HistoryItem
from steerx_edge.learning.ablation import read_items
from steerx_edge.learning.candidates import candidates_of
from steerx_edge.learning.description import fixed_description, style_facts, why_unusable
from steerx_edge.learning.effects import word_effects
from steerx_edge.learning.learn import default_layers, learn
from steerx_edge.learning.settings import Settings
from steerx_edge.llamacpp.control_vector import check_layers
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.llamacpp.interventions import Add
from steerx_edge.llamacpp.prompts import messages_for
from steerx_edge.profile import Profile
from steerx_edge.version import __version__
from tests.support.engines import InterruptedEngine
from tests.support.histories import (
    CONTRAST,
    HISTORY,
    UNCALIBRATED,
    assert_alike,
    only_entry,
    without_time,
)

Calls = list[tuple[str, int, int]]


@pytest.mark.parametrize(
    "settings",
    [
        replace(CONTRAST, layers=(1, 3), max_items=3),
        Settings(calibrate=False, layers=(2,), selection="weighted", strength=0.3, row="at"),
    ],
    ids=["context-contrast", "stylevector"],
)
def test_a_profile_holds_what_each_step_finds(tiny_engine: Engine, settings: Settings) -> None:
    entry = only_entry(learn(tiny_engine, HISTORY, settings))
    items, layers = HISTORY[-(settings.max_items or 4) :], settings.layers
    assert layers is not None
    ablation = read_items(tiny_engine, items, layers, settings)
    candidates = candidates_of(tiny_engine, ablation, entry.description, layers, settings)
    effects = [result.effects for result in ablation.results]
    assert entry.layers == layers
    assert entry.contrast_methods == settings.contrast_methods * len(layers)
    expected = [each.direction() for each in candidates]  # from calls of other sizes
    np.testing.assert_allclose(entry.directions, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(entry.directions, axis=-1), 1, atol=1e-6)
    assert entry.norms.tolist() == pytest.approx([each.norm for each in candidates])
    assert entry.strengths.tolist() == pytest.approx([settings.strength] * len(layers))
    assert entry.words == word_effects(effects)
    assert entry.counts == {
        "items": len(items),
        "items_given": 4,
        "tokens": sum(len(each.tokens) for each in effects),
        "anchors": sum(result.n_anchors for result in ablation.results),
    }
    assert (entry.logit_bias, entry.memory, entry.gate, entry.gain) == (None, None, None, None)


def test_a_profile_tells_how_it_was_made(tiny_engine: Engine) -> None:
    settings = replace(UNCALIBRATED, max_items=8, in_context=2)
    entry = only_entry(learn(tiny_engine, HISTORY, settings))
    assert entry.settings == {
        "contrast_methods": "stylevector",
        "selection": "all",
        "described": False,
        "estimate": "mean",
        "max_weight": 3.0,
        "logit_bias": True,
        "memory": "causal",
        "calibrate": False,
        "in_context": 2,
        "fold": 4,
        "threshold": 1.0,
        "min_anchors": 3,
        "row": "predicts",
        "sample": 24,
        "max_items": 8,
    }
    assert entry.layers == default_layers(4, settings) == (2,)
    assert entry.positions == "generated"
    assert entry.model == tiny_engine.model_id
    llama_version = llama_cpp.__version__
    assert entry.versions == {"steerx_edge": __version__, "llama_cpp_python": llama_version}


def test_the_description_is_of_the_words_and_texts(tiny_engine: Engine) -> None:
    entry = only_entry(learn(tiny_engine, HISTORY, UNCALIBRATED))
    facts = style_facts([item.response for item in HISTORY])
    assert "You trail off with dots." in facts
    assert entry.words
    assert entry.description.origin == "statistics"
    assert entry.description.text == fixed_description(entry.words, facts)


def test_a_saved_profile_holds_everything_but_the_texts(
    tiny_engine: Engine, tmp_path: Path
) -> None:
    profile = learn(tiny_engine, HISTORY)
    profile.save(tmp_path / "me.json")
    assert Profile.load(tmp_path / "me.json") == profile
    assert_holds_no_text(tmp_path / "me.json", HISTORY)


def assert_holds_no_text(path: Path, history: Sequence[HistoryItem]) -> None:
    """No five words in a row, which is more than words and a description share by chance."""
    document = path.read_text(encoding="utf-8")
    for item in history:
        for text in (item.response, item.request):
            words = text.split()
            for begin in range(len(words) - 4):
                assert " ".join(words[begin : begin + 5]) not in document


def test_the_same_texts_give_the_same_profile_bit_for_bit(
    tiny_f32: TinyModel, tiny_engine: Engine, open_llama: Callable[..., Llama]
) -> None:
    blank = HistoryItem(" \n", "Write about nothing.")
    first = without_time(learn(tiny_engine, HISTORY))
    again = without_time(learn(open_llama(tiny_f32, n_ctx=1024), [*HISTORY, blank]))
    assert again == replace(first, counts={**first.counts, "items_given": 5})
    assert again.directions.tobytes() == first.directions.tobytes()
    assert again.norms.tobytes() == first.norms.tobytes()


def test_a_model_may_be_given_by_its_path(
    tiny_f32: TinyModel, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # threads, as of the other models here
    by_path, by_engine = (
        only_entry(learn(model, HISTORY[:2], CONTRAST)) for model in (tiny_f32.path, tiny_engine)
    )
    assert by_path.model == by_engine.model
    # The KV cache of a path's context is of half precision, unlike that of the fixture.
    np.testing.assert_allclose(by_path.directions, by_engine.directions, atol=0.02)


def test_two_texts_are_enough_for_calibration(tiny_engine: Engine) -> None:
    assert only_entry(learn(tiny_engine, HISTORY[:2])).counts["items"] == 2


def test_texts_that_make_no_difference_are_an_error(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tiny_engine.analysis, "generate_many", lambda requests: [[] for _ in requests]
    )
    with pytest.raises(SteerxError, match="do not change the model's residual stream"):
        learn(tiny_engine, HISTORY)


class TestLayers:
    @pytest.mark.parametrize("layers", [(0, 1), (1, 4), (-1,), (2, 1), (1, 1)])
    def test_blocks_that_cannot_be_steered_are_an_error(
        self, tiny_engine: Engine, layers: tuple[int, ...]
    ) -> None:
        with pytest.raises(ModelError, match=r"Layers .* cannot be steered: .*, 1 to 3\."):
            learn(tiny_engine, HISTORY, Settings(layers=layers))

    @pytest.mark.parametrize(
        ("n_layer", "uncalibrated", "candidates"),
        [
            (2, (1,), (1,)),
            (3, (2,), (1, 2)),
            (4, (2,), (2, 3)),
            (30, (20,), (15, 24)),
            (32, (21,), (16, 25)),
        ],
    )
    def test_default_layers(
        self, n_layer: int, uncalibrated: tuple[int, ...], candidates: tuple[int, ...]
    ) -> None:
        assert default_layers(n_layer, UNCALIBRATED) == uncalibrated
        assert default_layers(n_layer, Settings()) == candidates
        check_layers(candidates, n_layer)


class TestResuming:
    @pytest.mark.parametrize(
        ("settings", "last_call", "n_spared"),
        [
            pytest.param(CONTRAST, 3, 0, id="before a fold is complete"),
            pytest.param(CONTRAST, 6, 4, id="within the folds"),
            pytest.param(Settings(), 7, 6, id="before the model's replies"),
            pytest.param(Settings(), 10, 9, id="in the calibration"),
        ],
    )
    def test_what_was_found_before_an_interrupt_is_not_computed_again(
        self,
        tiny_llama: Llama,
        tmp_path: Path,
        settings: Settings,
        last_call: int,
        n_spared: int,
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        whole = without_time(learn(engine, HISTORY, settings))
        n_calls = engine.n_calls
        engine.n_calls, engine.last_call = 0, last_call
        with pytest.raises(KeyboardInterrupt):
            learn(engine, HISTORY, settings, resume=tmp_path)
        engine.n_calls, engine.last_call = 0, 10**9
        resumed = without_time(learn(engine, HISTORY, settings, resume=tmp_path))
        assert engine.n_calls == n_calls - n_spared
        assert_alike(resumed, whole)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("history", "settings"),
        [(HISTORY[::-1], UNCALIBRATED), (HISTORY, replace(UNCALIBRATED, threshold=0.5))],
        ids=["other texts", "other settings"],
    )
    def test_other_work_starts_anew(
        self, tiny_llama: Llama, tmp_path: Path, history: list[HistoryItem], settings: Settings
    ) -> None:
        engine = InterruptedEngine(tiny_llama)
        engine.last_call = 6
        with pytest.raises(KeyboardInterrupt):
            learn(engine, HISTORY, UNCALIBRATED, resume=tmp_path)
        engine.n_calls, engine.last_call = 0, 10**9
        fresh = without_time(learn(engine, history, settings))
        n_calls, engine.n_calls = engine.n_calls, 0
        assert without_time(learn(engine, history, settings, resume=tmp_path)) == fresh
        assert engine.n_calls == n_calls


def test_strings_are_texts(tiny_engine: Engine) -> None:
    texts = [item.response for item in HISTORY]
    learned = learn(tiny_engine, texts, UNCALIBRATED)
    expected = learn(tiny_engine, [HistoryItem(text) for text in texts], UNCALIBRATED)
    assert without_time(learned) == without_time(expected)


def test_what_cannot_be_saved_can_be_resumed(tiny_llama: Llama, tmp_path: Path) -> None:
    engine, saved = InterruptedEngine(tiny_llama), list[Profile]()

    def full(_: Profile) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(engine, HISTORY, UNCALIBRATED, resume=tmp_path, save=full)
    n_calls, engine.n_calls = engine.n_calls, 0
    profile = learn(engine, HISTORY, UNCALIBRATED, resume=tmp_path, save=saved.append)
    assert engine.n_calls < n_calls / 2
    assert saved == [profile]
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_each_step(tiny_engine: Engine) -> None:
    calls: Calls = []
    learn(tiny_engine, HISTORY, progress=lambda *call: calls.append(call))
    steps = [what for what, _ in itertools.groupby(call[0] for call in calls)]
    assert steps == ["effects", "description", "stylevector", "calibration", "done"]
    assert calls[:8] == [("effects", done, 8) for done in range(8)]
    calibration = [call[1:] for call in calls if call[0] == "calibration"]
    assert calibration == sorted(set(calibration))
    # Unsteered, and one contrast method on two layers; then at most three settings around the
    # best, each on four texts and three neutral ones; and the fluency check.
    assert calibration[-1] == (43, 43)
    assert calls[-1] == ("done", 1, 1)


# ---------------------------------------------------------------- on a real model

MANNER = [
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
]
HELD_OUT = HistoryItem(
    "lol yeah... i made soup but i burned it... gonna order something instead lol",
    "What did you have for dinner?",
)


def test_a_real_model_is_steered_towards_the_persons_manner(
    smollm2_engine: Engine, tmp_path: Path
) -> None:
    profile = learn(smollm2_engine, MANNER, CONTRAST)
    entry = profile.entry_for(smollm2_engine.model_id)
    context = smollm2_engine.prompt(messages_for(HELD_OUT.request))
    response = smollm2_engine.tokenize(HELD_OUT.response)
    steered, unsteered, away = (
        smollm2_engine.score(
            context, response, interventions=(Add(entry.layers, entry.vectors(strength)),)
        ).mean()
        for strength in (1, 0, -1)
    )
    assert steered > unsteered + 0.05
    assert steered > away + 0.1

    assert {"lol", "..."} <= {word.word for word in entry.words}
    facts = style_facts([item.response for item in MANNER])
    assert "You write without capital letters." in facts
    if entry.description.origin == "model":
        assert why_unusable(entry.description.text, entry.words, facts) is None
    else:
        assert entry.description.text == fixed_description(entry.words, facts)

    profile.save(tmp_path / "me.json")
    assert_holds_no_text(tmp_path / "me.json", MANNER)
