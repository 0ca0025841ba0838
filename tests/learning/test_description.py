"""Style facts, the fixed description, and what a model's own is checked for."""

from __future__ import annotations

from collections.abc import Callable
from unicodedata import normalize

import pytest
from llama_cpp import Llama

from models import TinyModel
from steerx_edge.learning.description import (
    describe,
    fixed_description,
    style_facts,
    tidied,
    why_unusable,
)
from steerx_edge.llamacpp.engine import Engine
from steerx_edge.profile import Word

PLAIN = "You write sentences of about 20 words."


def sentence(n_words: int, *, capitals: int = 1, end: str = ".") -> str:
    """A sentence of `n_words` words, the first so many of them capitalized."""
    return " ".join(["Word"] * capitals + ["word"] * (n_words - capitals)) + end


def prose(*inserted: str, n_words: int = 100) -> str:
    """Sentences of 20 words; an insertion stands in for the last word of one, with its dot."""
    sentences = [sentence(20)] * (n_words // 20)
    for i, text in enumerate(inserted):
        sentences[i] = sentences[i].removesuffix("word.") + text
    return " ".join(sentences)


def words(*names: str) -> list[Word]:
    return [Word(name, effect=1.0, low=0.5, high=1.5, count=2, items=2) for name in names]


class TestStyleFacts:
    @pytest.mark.parametrize(
        ("lengths", "fact"),
        [
            ([3], "You write short sentences, of about 3 words."),
            ([12, 12, 40], "You write short sentences, of about 12 words."),
            ([13], "You write sentences of about 13 words."),
            ([3, 20, 21, 22, 90], "You write sentences of about 21 words."),
            ([23], "You write sentences of about 23 words."),
            ([24], "You write long sentences, of about 24 words."),
        ],
    )
    def test_the_median_sentence_length_is_always_the_first_fact(
        self, lengths: list[int], fact: str
    ) -> None:
        assert style_facts([" ".join(sentence(n) for n in lengths)])[0] == fact

    @pytest.mark.parametrize(
        "end", [".", "!", "?", "…", "...", "?!", '."', ".’", ".)", "\n\n", "\n \n"]
    )
    def test_where_a_sentence_ends(self, end: str) -> None:
        (first, *_) = style_facts([f"{sentence(16, end=end)} {sentence(14)}"])
        assert first == "You write sentences of about 15 words."

    def test_a_sentence_ends_with_its_text(self) -> None:
        assert style_facts([sentence(14, end=""), sentence(14, end="")]) == [
            "You write sentences of about 14 words."
        ]

    def test_words_with_apostrophes_count_once_and_numbers_do_not_count(self) -> None:
        text = "It's 12 o'clock, Ann’s dog said on 3 May that " + sentence(4, capitals=0)
        assert style_facts([text])[0] == "You write short sentences, of about 12 words."

    @pytest.mark.parametrize("texts", [[], [""], ["123 !!", "... ?"]])
    def test_without_words_there_are_no_facts(self, texts: list[str]) -> None:
        assert style_facts(texts) == []

    def test_plain_prose_has_no_habits(self) -> None:
        assert style_facts([prose(), prose(n_words=200)]) == [PLAIN]

    HABITS = (
        (
            "You capitalize most words, as in a title.",
            sentence(20, capitals=13),
            sentence(20, capitals=12),
        ),
        ("You capitalize most words, as in a title.", sentence(20).upper(), prose()),
        (
            "You write without capital letters.",
            " ".join([sentence(20)] * 3 + [sentence(20, capitals=0)] * 7),
            " ".join([sentence(20)] * 4 + [sentence(20, capitals=0)] * 6),
        ),
        (
            "You put words in capitals for emphasis.",
            prose("WAY.", "TOO.", "TIRED."),  # more than 2 in 100
            prose("WAY.", "TOO.", "TIRED.", n_words=200),
        ),
        ("You put words in capitals for emphasis.", prose(*["WAY."] * 3), prose(*["OK."] * 3)),
        ("You use exclamation marks often.", prose("word!", "word!"), prose("word!")),
        ("You ask questions.", prose("word?", "word?"), prose("word?")),
        ("You trail off with dots.", prose("word..."), prose("word...", n_words=200)),
        ("You trail off with dots.", prose("word.."), prose()),
        ("You trail off with dots.", prose("word…"), prose("word…", n_words=200)),
        ("You break sentences with dashes.", prose("- word.", "- word."), prose("- word.")),
        ("You break sentences with dashes.", prose("– word.", "word—."), prose("w-w.", "w-w.")),
        ("You use contractions.", prose("don't.", "it’s."), prose("don't.")),
        ("You use contractions.", prose("we'll.", "they've."), prose("o'clock.", "o'clock.")),
        ("You use contractions.", prose("WE'RE.", "I'd."), prose("I'd.")),
        ("You use semicolons.", prose("word;."), prose("word;.", n_words=200)),
        (
            "You quote what people say.",
            prose('"word".', '"word".'),
            prose('"word".'),
        ),
        (
            "You quote what people say.",
            prose("“word”.", "“word”.", "‘word’.", "“word”."),
            prose("“word”.", "“word”.", "‘word’."),
        ),
        (
            "You write in the first person.",
            prose("I.", "my.", "me.", "My.", "i."),
            prose("I.", "my.", "me.", "My.", "mine."),
        ),
        ("You use emoji.", prose("word. 🙂"), prose("word. 🙂", n_words=400)),
        ("You use emoji.", prose("word. ☀"), prose("word. é")),
    )

    @pytest.mark.parametrize(("habit", "has_it", "_"), HABITS)
    def test_a_habit_above_its_bound_is_a_fact(self, habit: str, has_it: str, _: str) -> None:
        assert style_facts([has_it]) == [PLAIN, habit]

    @pytest.mark.parametrize(("habit", "_", "has_it_not"), HABITS)
    def test_a_habit_at_its_bound_is_not_a_fact(self, habit: str, _: str, has_it_not: str) -> None:
        assert habit not in style_facts([has_it_not])
        assert style_facts([has_it_not])[0] == PLAIN

    def test_facts_about_informal_messages(self) -> None:
        texts = [
            "lol i just saw it... no way!! we're so late haha",
            "ok so... i can't come, my train is stuck. you good?",
            "omg... that's the best news!! i'm so happy for you lol",
        ]
        assert style_facts(texts) == [
            "You write short sentences, of about 4 words.",
            "You write without capital letters.",
            "You use exclamation marks often.",
            "You ask questions.",
            "You trail off with dots.",
            "You use contractions.",
            "You write in the first person.",
        ]

    WORLD: tuple[tuple[str, list[str]], ...] = (
        ("茶を飲みました。とても寒いです。", ["You write sentences of about 7 characters."]),
        (
            "你喜欢喝茶吗？我不知道。",
            ["You write sentences of about 5 characters.", "You ask questions."],
        ),
        ("เขาชอบดื่มชามาก วันนี้ฝนตก", []),
        (
            "मैं हिन्दी में लिखता हूँ। मैं चाय भी पीता हूँ।",
            ["You write sentences of about 5 words."],
        ),
        ("გამარჯობა, მეგობარო.", ["You write sentences of about 2 words."]),
        ("ᎣᏏᏲ ᏙᎯᏧ.", ["You write sentences of about 2 words."]),
        ('ד"ר כהן מצה"ל אמר.', ["You write sentences of about 4 words."]),
        ("Men o‘zbekcha yozaman, o‘qiyman.", ["You write sentences of about 4 words."]),
        ("Ağaçtan düştüm.", ["You write sentences of about 2 words."]),
        ("Πού είναι; Δεν ξέρω.", ["You write sentences of about 2 words.", "You ask questions."]),
    )

    @pytest.mark.parametrize(("text", "facts"), WORLD)
    def test_facts_of_other_scripts(self, text: str, facts: list[str]) -> None:
        assert style_facts([text]) == facts

    def test_questions_and_exclamations_of_other_scripts(self) -> None:
        assert style_facts(["أَيْنَ كِتَابِي؟ هُنَا!"]) == [
            "You write sentences of about 2 words.",
            "You use exclamation marks often.",
            "You ask questions.",
        ]

    def test_facts_of_english_are_not_said_of_other_languages(self) -> None:
        text = "Idem kući i spavam i jedem čaj i učim i šećem i čekam."
        assert "You write in the first person." not in style_facts([text])

    def test_composed_or_not_the_facts_are_the_same(self) -> None:
        text = "Été à Bézancon, café crème à côté. Voilà une idée déjà née."
        assert style_facts([normalize("NFD", text)]) == style_facts([text])

    def test_line_breaks_at_a_width_do_not_end_sentences(self) -> None:
        mail = (
            "The meeting on Thursday has been moved to Friday at noon, because the\n"
            "big room on the second floor is being painted for the whole of this\n"
            "week. Please tell everybody else who might want to attend, and bring\n"
            "the figures that we have talked about the last time, as they will be\n"
            "needed by the people from the other office."
        )
        assert style_facts([mail]) == style_facts([mail.replace("\n", " ")])


class TestFixedDescription:
    @pytest.mark.parametrize(
        ("facts", "anchors", "text"),
        [
            ([], [], "You write in a manner of your own."),
            ([], ["lol"], 'You favour words such as "lol".'),
            ([], ["...", "!!", "🙂", "12"], "You write in a manner of your own."),
            (
                ["You ask questions.", "You use emoji."],
                ["!!", "lol", "don't", "’", "haha"],
                'You ask questions. You use emoji. You favour words such as "lol", "don\'t", '
                '"haha".',
            ),
            (
                [],
                ["吧", "ラーメン", "呢"],
                'You favour words such as "ラーメン". You favour characters such as "吧", "呢".',
            ),
            ([], ["،", "،،"], "You write in a manner of your own."),
            (
                [],
                list("abcdefgh"),
                'You favour words such as "a", "b", "c", "d", "e", "f".',
            ),
        ],
    )
    def test_it_is_the_facts_and_the_strongest_words(
        self, facts: list[str], anchors: list[str], text: str
    ) -> None:
        assert fixed_description(words(*anchors), facts) == text


FACTS = [
    "You write short sentences, of about 7 words.",
    "You trail off with dots.",
    "You use exclamation marks often.",
]
ANCHORS = words("honestly", "lol", "...", "tbh", "Vibe")
GOOD = (
    "You write short sentences, of about 7 words, and you often trail off with dots. "
    'You favour words such as "honestly" and "lol", and you use exclamation marks often!'
)


def other_words(n: int, letter: str = "x") -> str:
    """Distinct words that no description shares."""
    return " ".join(f"{letter}{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(n))


UNMEASURED = "it claims what was not measured"
FALSE_CLAIMS = [
    "You are a humorous writer, with exclamation marks.",
    "You write long sentences, of about 7 words.",
    "You write short sentences, of about 9 words.",
    "You use short words and exclamation marks.",
    "You never use exclamation marks in the text.",
    "You write without exclamation marks or dots.",
    'You like the word "honest" and exclamation marks.',
    'You use the word "lol" instead of the more formal "tbh".',
    "You use exclamation marks and words such as honestly and truly.",
]


class TestWhyUnusable:
    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(GOOD, id="good"),
            pytest.param('You write short sentences, and often say "honestly."', id="quoted end"),
            pytest.param("You use dots, and words such as VIBE and HONESTLY.", id="case"),
            pytest.param("You often write short sentences, and use dots.", id="8 words"),
            pytest.param("You trail off, and you also use exclamation marks.", id="two facts"),
        ],
    )
    def test_a_usable_answer(self, answer: str) -> None:
        assert why_unusable(answer, ANCHORS, FACTS) is None

    def test_a_habit_of_doing_without_is_not_turned_round(self) -> None:
        facts = ["You write without capital letters.", "You ask questions."]
        answer = "You ask questions, and you write {} capital letters."
        assert why_unusable(answer.format("without"), [], facts) is None
        assert why_unusable(answer.format("in"), [], facts) == UNMEASURED

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("", "it has 0 words"),
            ("You write short sentences that trail off.", "it has 7 words"),
            (f"You trail off with dots {other_words(86)}.", "it has 91 words"),
            (f"Sure! {GOOD}", "it does not speak to the user"),
            (f"The person writes short sentences. {GOOD}", "it does not speak to the user"),
            (GOOD.replace("You write", "I write", 1), "it does not speak to the user"),
            (f"You asked, so I describe: {GOOD}", "it speaks of the model"),
            (f"You told me this: {GOOD}", "it speaks of the model"),
            (GOOD + "<|im_end|>", "it holds template text"),
            (GOOD + " User: hello.", "it holds template text"),
            (GOOD + " [/INST].", "it holds template text"),
            (GOOD + " ### More.", "it holds template text"),
            (GOOD + " See https://example.org.", "it holds template text"),
            (GOOD.replace("dots. ", "dots.\r\n"), "it holds template text"),
            (GOOD.replace("off", "\x1b[1moff"), "it holds template text"),
            ("You write short sentences. " * 4, "it repeats itself"),
            (
                f"You trail off, honestly: {other_words(6)} {other_words(6, 'y')} "
                f"{other_words(6)}.",  # 16 of 20 trigrams are distinct
                "it repeats itself",
            ),
            (GOOD.removesuffix("!"), "it is cut off"),
            (f"Your Typical words: honestly. {GOOD}", "it repeats the question"),
            (GOOD.removesuffix("exclamation mark!") + "exclam", "it is cut off"),
            (
                "You have a clear and friendly tone, and an eye for the small things.",
                "it shares too little with what was measured",
            ),
            (
                "You write your words in sentences, about as most people often do that.",
                "it shares too little with what was measured",
            ),
            (
                "You say lol and tbh and you are of the same mind as with all.",  # short ones
                "it shares too little with what was measured",
            ),
            (
                "You say honestly, and honestly again, and honestly to the very end.",
                "it shares too little with what was measured",
            ),
            *((f"You trail off with dots. {claim}", UNMEASURED) for claim in FALSE_CLAIMS),
        ],
    )
    def test_an_unusable_answer_has_a_reason(self, answer: str, reason: str) -> None:
        assert why_unusable(answer, ANCHORS, FACTS) == reason


class TestTidied:
    @pytest.mark.parametrize(
        ("answer", "tidy"),
        [
            pytest.param(GOOD, GOOD, id="good"),
            pytest.param(f"  {GOOD}\n\nI hope this helps!", GOOD, id="first paragraph"),
            pytest.param("You are brief. You are kind and", "You are brief.", id="cut off"),
            pytest.param("You say 3.5 times.\nYou do!", "You say 3.5 times. You do!", id="lines"),
            pytest.param("You\nsay:\r\n lol.", "You say: lol.", id="broken lines"),
            pytest.param('You say "lol." You do?', 'You say "lol." You do?', id="quotes"),
            pytest.param(
                "You sing. You dance. You talk. You sleep.",
                "You sing. You dance. You talk.",
                id="three sentences",
            ),
            pytest.param(
                "You write short texts. You write short texts. You laugh a lot.",
                "You write short texts. You laugh a lot.",
                id="said already",
            ),
            pytest.param(
                "You write as you talk. You write as they listen to you in the yard.",
                "You write as you talk. You write as they listen to you in the yard.",
                id="said in small part",
            ),
            pytest.param(
                "You write in an unhurried, tentative voice. You laugh a lot.",
                "You laugh a lot.",
                id="of the example",
            ),
            pytest.param(
                "You return to a cat. You prefer to laugh.",
                "You return to a cat. You prefer to laugh.",
                id="three words of the example",
            ),
        ],
    )
    def test_an_answer_is_cut_to_its_usable_sentences(self, answer: str, tidy: str) -> None:
        assert tidied(answer) == tidy


class TestDescribe:
    def test_the_fixed_description_is_used_if_the_model_writes_nonsense(
        self, tiny_engine: Engine
    ) -> None:
        description = describe(tiny_engine, ANCHORS, FACTS)
        assert description.origin == "statistics"
        assert description.text == fixed_description(ANCHORS, FACTS)

    def test_the_context_of_the_llama_is_not_used(
        self, open_llama: Callable[..., Llama], tiny_f32: TinyModel
    ) -> None:
        """It may hold a chat, and have no room for the question."""
        llama = open_llama(tiny_f32, n_ctx=64)
        llama.eval([5, 6, 7])
        describe(Engine(llama), ANCHORS, FACTS)
        assert llama.n_tokens == 3
        assert list(llama.input_ids[:3]) == [5, 6, 7]

    def test_an_answer_of_a_real_model_is_used_only_if_it_is_usable(
        self, smollm2_engine: Engine
    ) -> None:
        description = describe(smollm2_engine, ANCHORS, FACTS)
        if description.origin == "model":
            assert why_unusable(description.text, ANCHORS, FACTS) is None
        else:
            assert description.origin == "statistics"
            assert description.text == fixed_description(ANCHORS, FACTS)


def test_possessives_are_not_contractions() -> None:
    text = "Ann's dog sat on Ben's mat by Carol's house near the town of Denham today."
    assert "You use contractions." not in style_facts([text])
    assert "You use contractions." in style_facts(["It's fine, but they don't say so to me."])


def test_a_few_capitals_count_as_capitals() -> None:
    text = "iPhone sales rose. 3 Men saw it. the Queen of England spoke."
    assert "You write without capital letters." not in style_facts([text])


def test_a_list_of_words_is_not_a_description() -> None:
    answer = (
        "You write short sentences. You return to honestly, lol, soooo, Vibe, sentences, and dots."
    )
    assert (
        why_unusable(answer.replace("to honestly", "to, honestly"), ANCHORS, FACTS)
        == "it is a list"
    )
