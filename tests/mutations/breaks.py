"""The breaks: one small change of one file each, and the tests that must notice it.

Add a line for each guarantee that you care about. `python tests/mutations/run.py -k WORDS` tries
those whose name or file holds the words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """A deliberate mistake.

    Args:
        name: what is wrong then.
        where: a file or a folder, from the root of the repository.
        old: a text that stands there exactly once.
        new: what takes its place.
        tests: arguments of pytest, one of whose tests must fail.
    """

    name: str
    where: str
    old: str
    new: str
    tests: str

    @property
    def is_native(self) -> bool:
        """Whether the extension must be compiled again."""
        return self.where.startswith("native")


DRAFTS = "steerx_edge/profile/drafts_file.py"
FEEDBACK = "steerx_edge/learning/feedback.py"
TEST_DRAFTS = "tests/profile/test_drafts_file.py"
TEST_FEEDBACK = "tests/learning/test_feedback.py"
TEST_FEEDBACK_COMMAND = "tests/apps/test_feedback_command.py"
TEST_KILL = "tests/end_to_end/test_kill.py"
GATE = "steerx_edge/steering/gate.py"
BIAS = "steerx_edge/steering/logit_bias.py"
MEMORY = "steerx_edge/steering/memory.py"
LIVE = "steerx_edge/live.py"
ENTRY = "steerx_edge/profile/entry.py"
PARTS = "steerx_edge/profile/parts.py"
JSON = "steerx_edge/profile/json_format.py"
JSON_STRUCTS = "steerx_edge/profile/json_structs.py"
FILES = "steerx_edge/profile/files.py"
STORE = "steerx_edge/profile/store.py"
VECTORS = "steerx_edge/profile/control_vector_file.py"
PRODUCERS = "steerx_edge/profile/producers.py"
COMBINING = "steerx_edge/profile/combining.py"
CHATS = "steerx_edge/apps/steered_chat.py"
MEMORY_FILE = "steerx_edge/profile/memory_file.py"
WORDS = "steerx_edge/history/words.py"
RETRIEVAL = "steerx_edge/history/retrieval.py"
HISTORY = "steerx_edge/history"
READERS = "steerx_edge/history/readers"
MAIL = "steerx_edge/history/mail"
EFFECTS = "steerx_edge/learning/effects.py"
ROWS = "steerx_edge/learning/memory_rows.py"
LEARNING = "steerx_edge/learning"
LLAMACPP = "steerx_edge/llamacpp"
CVEC = "steerx_edge/llamacpp/control_vector.py"
CHANGES = "steerx_edge/llamacpp/interventions.py"
PROMPTS = "steerx_edge/llamacpp/prompts.py"
PLANNING = "steerx_edge/llamacpp/planning.py"
SAMPLING = "steerx_edge/llamacpp/sampling.py"
LOCKS = "steerx_edge/llamacpp/locks.py"
SAMPLE = "steerx_edge/evaluation/sample.py"
FIGURES = "steerx_edge/evaluation/figures.py"
EVALUATOR = "steerx_edge/evaluation/evaluator.py"
SERVER = "steerx_edge/apps/server"
METRICS = "steerx_edge/evaluation/text_metrics.py"
RUN = "steerx_edge/evaluation/run.py"
EXPLAINING = "steerx_edge/explaining"
FORGETTING = "steerx_edge/forgetting.py"

TEST_GATE = "tests/steering/test_gate.py"
TEST_BIAS = "tests/steering/test_logit_bias.py"
TEST_MEMORY = "tests/steering/test_memory.py"
TEST_LIVE = "tests/live/test_live.py"
TEST_PREDICTIONS = "tests/live/test_live_predictions.py"
TEST_ENTRY = "tests/profile/test_entry.py"
TEST_JSON = "tests/profile/test_json_format.py"
TEST_STORE = "tests/profile/test_store.py"
TEST_VECTORS = "tests/profile/test_control_vector_file.py"
TEST_COMBINING = "tests/profile/test_combining.py"
TEST_LLM = "tests/apps/test_llm_plugin.py"
TEST_MEMORY_FILE = "tests/profile/test_memory_file.py"
TEST_WORDS = "tests/history/test_words.py"
TEST_MAILBOXES = "tests/history/test_mailboxes.py tests/history/test_mail_programs.py"
TEST_OWN_WORDS = "tests/history/mail/test_own_words.py"
TEST_READERS = "tests/history/readers"
TEST_CONVERSATIONS = f"{TEST_READERS}/test_conversations.py"
TEST_FORMATS = "tests/history/test_formats.py"
TEST_RETRIEVAL = "tests/history/test_retrieval.py"
TEST_SELECTION = "tests/history/test_selection.py"
TEST_DOCUMENTS = "tests/history/test_documents.py"
TEST_TABLES = "tests/history/test_tables.py"
TEST_HISTORY = "tests/history/test_readers.py"
TEST_EFFECTS = "tests/learning/test_effects.py"
TEST_ROWS = "tests/learning/test_memory_rows.py"
TEST_DIRECTIONS = "tests/learning/test_directions.py"
TEST_CONTRASTS = "tests/learning/test_contrasts.py"
TEST_CALIBRATION = "tests/learning/calibration"
TEST_CVEC = "tests/llamacpp/test_control_vector.py"
TEST_CHANGES = "tests/llamacpp/test_interventions.py"
TEST_PROMPTS = "tests/llamacpp/test_prompts.py"
TEST_PLANNING = "tests/llamacpp/test_planning.py"
TEST_SAMPLE = "tests/evaluation/test_sample.py"
TEST_METRICS = "tests/evaluation/test_text_metrics.py"
TEST_EVALUATOR = "tests/evaluation/test_evaluator.py"
TEST_RUN = "tests/evaluation/test_run.py"
TEST_FORGET = "tests/apps/test_forget.py"

BREAKS = [
    # ------------------------------------------------------------ steering
    Break(
        "a file is written in its place",
        FILES,
        "            temporary.replace(path)",
        "            path.write_bytes(temporary.read_bytes())",
        f"{TEST_KILL} -k edit",
    ),
    Break(
        "what killed programs left stays",
        FILES,
        "        remove_abandoned(folder)\n",
        "        pass\n",
        f"{TEST_KILL} -k edit",
    ),
    Break(
        "the server says too early that it listens",
        "steerx_edge/apps/server/serving.py",
        "    listening.listen()",
        "    pass",
        "tests/apps/server/test_serve_command.py",
    ),
    Break(
        "the model's process keeps what requests leave",
        "steerx_edge/apps/server/worker.py",
        "                gc.collect()",
        "                pass",
        "tests/apps/server/test_profiles_served.py -k closed",
    ),
    Break("the gate opens the other way", GATE, ">= self.threshold", "< self.threshold", TEST_GATE),
    Break("the gate has no ridge", GATE, "products += ridge *", "products += 0 *", TEST_GATE),
    Break("a gate sees what it judges", GATE, "own[folds[0] != fold]", "own", TEST_GATE),
    Break(
        "the logit bias is upside down",
        BIAS,
        "np.log((used + SMOOTHING) / (expected + SMOOTHING))",
        "np.log((expected + SMOOTHING) / (used + SMOOTHING))",
        TEST_BIAS,
    ),
    Break("a fold's own counts bias it", BIAS, "if fold != without", "if True", TEST_BIAS),
    Break("another temperature", MEMORY, "TEMPERATURE = 0.045", "TEMPERATURE = 0.05", TEST_MEMORY),
    Break("fewer neighbours", MEMORY, "NEIGHBOURS = 64", "NEIGHBOURS = 8", TEST_MEMORY),
    Break(
        "the memory is heard from far",
        MEMORY,
        "0.3, 0.7",
        "0.1, 0.7",
        "tests/llamacpp/test_run_many.py tests/llamacpp/test_generate_many.py -k memory",
    ),
    Break("a loop is noticed late", MEMORY, "_LOOP = 6", "_LOOP = 9", TEST_MEMORY),
    Break(
        "texts are recited",
        MEMORY,
        "self.memory.single, SINGLE_RUN",
        "self.memory.single[:0], SINGLE_RUN",
        TEST_MEMORY,
    ),
    Break("the model may be overruled", MEMORY, "_MOST = 0.95", "_MOST = 1.0", TEST_MEMORY),
    Break(
        "the memory comes before the logit bias",
        LIVE,
        """\
        logits[self._biased] += self._bias
        # With a draft model few tokens have a row, so all go without.
        if memory is not None and self._has_row and self._llama.draft_model is None:
            memory.shift(self._row(), ids[n_prompt:], logits)
""",
        """\
        if memory is not None and self._has_row and self._llama.draft_model is None:
            memory.shift(self._row(), ids[n_prompt:], logits)
        logits[self._biased] += self._bias
""",
        f"{TEST_PREDICTIONS} -k mixed",
    ),
    Break(
        "the memory takes the prompt for what was written",
        LIVE,
        "self._row(), ids[n_prompt:]",
        "self._row(), ids",
        f"{TEST_PREDICTIONS} -k 'counts_as_written or score_requests'",
    ),
    Break(
        "an answer that is left alone is biased",
        LIVE,
        "if not answer.leaves_alone:\n            self._steer_logits",
        "if True:\n            self._steer_logits",
        f"{TEST_PREDICTIONS} -k closed",
    ),
    Break(
        "the whole prompt is steered",
        LIVE,
        "self._vector.switch(on=everywhere and not self._is_gated)",
        "self._vector.switch(on=True)",
        f"{TEST_LIVE} -k reference",
    ),
    Break(
        "steered cells are read again unsteered",
        LIVE,
        "self._forget_cells(0 if by_all else self._vector.first_steered)",
        "pass",
        f"{TEST_LIVE} -k earlier",
    ),
    Break(
        "clear leaves the vector on",
        LIVE,
        "llama.set_cache(self._cache)\n        self._vector.switch(on=False)",
        "llama.set_cache(self._cache)\n        pass",
        f"{TEST_LIVE} -k clear",
    ),
    # ------------------------------------------------------------ profile
    Break(
        "directions point away",
        "steerx_edge/profile/fields.py",
        "scaled = float(strength)",
        "scaled = -float(strength)",
        TEST_ENTRY,
    ),
    Break(
        "a direction of any length is taken",
        ENTRY,
        "> _UNIT_TOLERANCE",
        "> 1e9",
        TEST_JSON,
    ),
    Break(
        "layers that the model does not have are taken",
        ENTRY,
        "if not below < layer < self.model.n_layer",
        "if not below < layer",
        TEST_JSON,
    ),
    Break(
        "with texts in the prompt the strengths are the usual ones",
        ENTRY,
        "strengths=found.strengths",
        "strengths=self.strengths",
        TEST_ENTRY,
    ),
    Break(
        "the memory has the strength of the command alone",
        PARTS,
        "ActiveMemory(self.memory, float(scaled))",
        "ActiveMemory(self.memory, float(strength))",
        TEST_ENTRY,
    ),
    Break("a key may be there twice", JSON, "if key in members:", "if False:", TEST_JSON),
    Break(
        "unknown keys are passed over",
        JSON_STRUCTS,
        "forbid_unknown_fields=True",
        "forbid_unknown_fields=False",
        TEST_JSON,
    ),
    Break(
        "terminal escapes get into words",
        JSON_STRUCTS,
        r'_LINE = rf"^(?![\s\S]*[{_CONTROL}\t\n])"',
        r'_LINE = rf"^"',
        TEST_JSON,
    ),
    Break("private files can be read by all", FILES, "return 0o600", "return 0o644", TEST_STORE),
    Break("nothing is flushed to the disk", FILES, "_sync(temporary)", "pass", TEST_STORE),
    Break(
        "a file is not replaced at once",
        FILES,
        "temporary.replace(path)",
        "path.write_bytes(temporary.read_bytes())",
        TEST_STORE,
    ),
    Break(
        "a failure leaves private files behind",
        FILES,
        "finally:\n            path.unlink(missing_ok=True)",
        "finally:\n            pass",
        TEST_STORE,
    ),
    Break(
        "any memory file is taken for the profile's",
        MEMORY_FILE,
        "if _digest(contents.data) != sha256:",
        "if False:",
        TEST_MEMORY_FILE,
    ),
    Break(
        "the order of the texts lies in the memory file",
        MEMORY_FILE,
        "_tensors_of(memory.sorted())",
        "_tensors_of(memory)",
        TEST_MEMORY_FILE,
    ),
    Break(
        "the memory of another model is taken",
        MEMORY_FILE,
        "if fingerprint is not None and",
        "if False and",
        TEST_MEMORY_FILE,
    ),
    Break(
        "a memory that was removed leaves its file",
        STORE,
        "target.with_name(name).unlink(missing_ok=True)",
        "pass",
        TEST_STORE,
    ),
    Break(
        "a profile is saved over what another program saved meanwhile",
        STORE,
        "since.entries if since else (), current",
        "since.entries if since else (), since.entries if since else ()",
        TEST_STORE,
    ),
    Break(
        "a file is not locked while it is saved",
        FILES,
        "lock.acquire()",
        "pass",
        TEST_STORE,
    ),
    Break(
        "a file that is no memory is replaced",
        STORE,
        "not path.exists() or is_memory_file(path)",
        "True",
        TEST_STORE,
    ),
    Break(
        "a copied fingerprint is believed",
        STORE,
        "if theirs != ours:",
        "if False:",
        TEST_STORE,
    ),
    # ------------------------------------------------------------ history
    Break(
        "the least relevant texts come first",
        RETRIEVAL,
        "(-scores[index], index)",
        "(scores[index], index)",
        TEST_RETRIEVAL,
    ),
    Break(
        "in a prompt the most relevant text is the first",
        "steerx_edge/history/budget.py",
        "[each, *chosen]",
        "[*chosen, each]",
        TEST_RETRIEVAL,
    ),
    Break(
        "a text finds itself",
        RETRIEVAL,
        "if index not in exclude",
        "if True",
        TEST_RETRIEVAL,
    ),
    Break(
        "a byte order mark is text",
        f"{READERS}/source.py",
        'return "utf-8-sig"',
        'return "utf-8"',
        TEST_HISTORY,
    ),
    Break(
        "a user's second row replaces the first",
        READERS,
        "if name in rows:",
        "if False:",
        TEST_HISTORY,
    ),
    Break("marks are not part of a word", WORDS, r"[\p{WB=Extend}\p{WB=ZWJ}", "[", TEST_WORDS),
    Break(
        "characters are not composed", WORDS, 'normalize("NFC", ', 'normalize("NFD", ', TEST_WORDS
    ),
    Break(
        "scripts without spaces have no pairs of characters",
        RETRIEVAL,
        "[a + b for a, b in pairwise(run)]",
        '["".join(run)]',
        TEST_RETRIEVAL,
    ),
    Break(
        "a diary is a chat",
        f"{READERS}/whatsapp.py",
        "(?<=[^\\n]\\n){_STAMP}",
        "{_STAMP}",
        TEST_FORMATS,
    ),
    Break(
        "a burst has no end",
        f"{READERS}/conversations.py",
        "abs(message.written - before.written) <= limit",
        "True",
        TEST_CONVERSATIONS,
    ),
    Break(
        "a text that answers nothing has a request all the same",
        f"{READERS}/conversations.py",
        "if self._theirs and _within",
        "if self._theirs or _within",
        TEST_CONVERSATIONS,
    ),
    Break(
        "what others wrote is shown",
        f"{READERS}/conversations.py",
        "yield Dropped(BY_OTHERS, message.where)",
        "yield Dropped(BY_OTHERS, message.where, message.text)",
        TEST_CONVERSATIONS,
    ),
    Break(
        "the person is guessed",
        f"{READERS}/people.py",
        "len(chats) > 1 and len(common) == 1",
        "common",
        f"{TEST_READERS}/test_people.py",
    ),
    Break(
        "months come first",
        f"{READERS}/whatsapp.py",
        "return self._n_none, self._n_back, self._last",
        "return 0, 0, self._last",
        f"{TEST_READERS}/test_whatsapp.py",
    ),
    Break(
        "forwarded messages are one's own",
        f"{READERS}/telegram.py",
        "return FORWARDED",
        'return ""',
        f"{TEST_READERS}/test_telegram.py",
    ),
    Break(
        "a post that was shared is one's own",
        f"{READERS}/x_archive.py",
        'raw.startswith("RT @")',
        "False",
        f"{TEST_READERS}/test_posts.py",
    ),
    Break(
        "drafts are read, not what was sent",
        f"{READERS}/branches.py",
        "if leaf not in parents:",
        "if parents:",
        f"{TEST_READERS}/test_chatbots.py",
    ),
    Break(
        "prompts stand beside other texts",
        "steerx_edge/history/opening.py",
        "if n_texts and isinstance(each, Text):",
        "if False:",
        f"{TEST_READERS}/test_chatbots.py",
    ),
    Break(
        "a mail in another encoding has no name",
        READERS,
        'self._data.decode(encoding_of(self._data), "replace")',
        '""',
        TEST_FORMATS,
    ),
    Break(
        "a part of a text may be code",
        HISTORY,
        "response, cut = without_code(text.item.response)  # of which a part may consist",
        "response, cut = text.item.response, []",
        TEST_SELECTION,
    ),
    Break(
        "three in ten common runs are enough",
        HISTORY,
        "_COMMON = 0.8",
        "_COMMON = 0.3",
        TEST_SELECTION,
    ),
    Break("close languages are others", HISTORY, '"da nn no",', "", TEST_SELECTION),
    Break(
        "deleted text is the person's",
        READERS,
        '("del", "moveFrom", ',
        '("moveFrom", ',
        TEST_DOCUMENTS,
    ),
    Break(
        "a heading ends no other", READERS, "if level < block.level}", "if True}", TEST_DOCUMENTS
    ),
    Break(
        "other people's rows are the person's",
        READERS,
        "elif mine is not None and",
        "elif mine == () and",
        TEST_TABLES,
    ),
    Break(
        "a memory that was cut off is kept",
        "steerx_edge/profile/gguf_contents.py",
        'contents_of(file, "cannot be written: the disk may be full")',
        "pass",
        TEST_MEMORY_FILE,
    ),
    Break(
        "marks of direction are words",
        WORDS,
        r"(?!\p{{WB=Format}}+(?:{_LETTER}|\s|\Z))",
        "",
        TEST_WORDS,
    ),
    Break(
        "known formats are prose",
        READERS,
        "if name := _name_of(source):",
        "if name := None:",
        TEST_FORMATS,
    ),
    Break(
        "wrongly decoded text is taken as it is",
        READERS,
        "if not _TELLING.search(text):",
        "if True:",
        TEST_FORMATS,
    ),
    Break(
        "a description may deny what was measured",
        "steerx_edge/learning/description.py",
        ' and ("without" in fact) == ("without" in clause)',
        "",
        "tests/learning/test_description.py",
    ),
    Break(
        "a description may claim what was not measured",
        "steerx_edge/learning/description.py",
        "return clause in runs",
        "return bool(runs)",
        "tests/learning/test_description.py",
    ),
    # ------------------------------------------------------------ learning
    Break(
        "effects have the other sign",
        EFFECTS,
        "treatment.scored - control.scored",
        "control.scored - treatment.scored",
        TEST_EFFECTS,
    ),
    Break(
        "intervals are of one half",
        EFFECTS,
        "[2.5, 97.5]",
        "[25, 75]",
        TEST_EFFECTS,
    ),
    Break(
        "a token belongs to its first word",
        EFFECTS,
        "found[found >= 0][-1]",
        "found[found >= 0][0]",
        TEST_EFFECTS,
    ),
    Break(
        "what the person did not cause is remembered",
        ROWS,
        "np.exp(-2 * nats",
        "np.exp(2 * nats",
        TEST_ROWS,
    ),
    Break(
        "a fold's memory holds its own texts",
        ROWS,
        "if text not in without",
        "if True",
        TEST_ROWS,
    ),
    Break(
        "runs of several texts are barred too",
        ROWS,
        "hashes[counts == 1]",
        "hashes[counts >= 1]",
        TEST_ROWS,
    ),
    Break(
        "words of the request are remembered",
        ROWS,
        "weights[:-1][taken] = 0",
        "weights[:-1][taken] = 1",
        TEST_ROWS,
    ),
    Break(
        "directions are not of unit length",
        f"{LEARNING}/directions.py",
        "(mean / length)",
        "(mean)",
        TEST_DIRECTIONS,
    ),
    Break(
        "norms are means, not medians",
        f"{LEARNING}/directions.py",
        "np.median(np.concatenate",
        "np.mean(np.concatenate",
        TEST_DIRECTIONS,
    ),
    Break(
        "rows are mapped to tokens one off",
        f"{LEARNING}/contrasts.py",
        'weights[1:] if convention == "at" else weights[:-1]',
        'weights[:-1] if convention == "at" else weights[1:]',
        TEST_CONTRASTS,
    ),
    Break(
        "a direction has seen the held-out text",
        LEARNING,
        "sorted(set(range(self.n_items)) - set(members))",
        "list(range(self.n_items))",
        TEST_CALIBRATION,
    ),
    Break(
        "the best setting is taken, not the most selective one near it",
        LEARNING,
        "min(_standard_error(behind), error)",
        "0",
        TEST_CALIBRATION,
    ),
    Break(
        "neutral text may lose anything",
        LEARNING,
        "for setting in gains if scores.loss(setting) <= MOST_LOSS",
        "for setting in gains",
        TEST_CALIBRATION,
    ),
    Break(
        "no fluency check",
        LEARNING,
        "<= unsteered.repeated + _MOST_REPEATED",
        "<= 9",
        TEST_CALIBRATION,
    ),
    Break(
        "an unreliable gain is taken",
        LEARNING,
        "if gain.low <= 0:",
        "if gain.low <= -9:",
        TEST_CALIBRATION,
    ),
    Break(
        "work is dropped before it is saved",
        "steerx_edge/learning/learn.py",
        "    save(profile)\n",
        "    checkpoint.remove()\n    save(profile)\n",
        "tests/learning/test_learn.py",
    ),
    Break(
        "folders of others are removed",
        "steerx_edge/learning/checkpoint.py",
        "_FOLDER_PATTERN.fullmatch(other.name)",
        "other.is_dir()",
        "tests/learning/test_checkpoint.py",
    ),
    Break(
        "a checkpoint may run code",
        LEARNING,
        "allow_pickle=False",
        "allow_pickle=True",
        "tests/learning/test_checkpoint.py",
    ),
    # ------------------------------------------------------------ llamacpp
    Break(
        "the vector is added one layer off",
        CVEC,
        "buffer[np.asarray(layers) - 1]",
        "buffer[np.asarray(layers) - 2]",
        TEST_CVEC,
    ),
    Break("only the lowest layer is steered", CVEC, "max(layers)", "min(layers)", TEST_CVEC),
    Break(
        "steering begins one token late",
        CHANGES,
        '"generated": n_context - 1}',
        '"generated": n_context}',
        TEST_CHANGES,
    ),
    Break(
        "of two additions the last one counts",
        CHANGES,
        "total[layer] + vector if layer in total else vector",
        "vector",
        TEST_CHANGES,
    ),
    Break(
        "texts in a prompt are in the other order",
        PROMPTS,
        "for item in history:",
        "for item in reversed(history):",
        TEST_PROMPTS,
    ),
    Break(
        "a template's control tokens are text",
        PROMPTS,
        "self._tokenize(_filled(prompt, contents), special=True)",
        "self._tokenize(_filled(prompt, contents), special=False)",
        TEST_PROMPTS,
    ),
    Break(
        "a stale prefix is used",
        "steerx_edge/live_prefix.py",
        "and self._made_by == prefix.made_by",
        "or True",
        "tests/live/test_live_prefix.py",
    ),
    Break(
        "a prefix comes back after forget",
        "steerx_edge/live_prefix.py",
        "if self._file is not None and self._file == _identity(profile, renewed):",
        "if True:",
        "tests/live/test_live_prefix.py",
    ),
    Break(
        "a prefix of a model with BOS is BOS alone",
        PROMPTS,
        "for i in range(1, n_common)",
        "for i in range(n_common)",
        TEST_PROMPTS,
    ),
    Break(
        "a prefix is removed though the profile was kept",
        "steerx_edge/apps/cli/learn.py",
        "if not saved.n_texts:",
        "if False:",
        "tests/apps/test_cli.py -k fuller",
    ),
    Break(
        "a request chooses no beginning",
        "steerx_edge/history/retrieval.py",
        "return self._owners[self._retriever.retrieve(request, 1)[0]]",
        "return self._owners[0]",
        "tests/live/test_live_prefix.py",
    ),
    Break(
        "a prefix does not stay",
        "steerx_edge/llamacpp/kept_prefix.py",
        "if each not in self._staying]",
        "]",
        "tests/llamacpp/test_kept_prefix.py",
    ),
    Break(
        "two beginnings for any gain",
        "steerx_edge/learning/prefix.py",
        "if gains.mean() >= _LEAST_GAIN:",
        "if gains.mean() >= 0:",
        "tests/learning/test_prefix.py",
    ),
    Break(
        "the texts of a prefix judge it",
        "steerx_edge/learning/prefix.py",
        "if i not in held_out]",
        "if i >= 0]",
        "tests/learning/test_prefix.py",
    ),
    Break(
        "a state without cells is taken for a prefix",
        "steerx_edge/llamacpp/kept_prefix.py",
        "_SEQUENCE) != len(tokens) - 1:",
        "_SEQUENCE) < -9:",
        "tests/llamacpp/test_kept_prefix.py",
    ),
    Break(
        "a damaged prefix file is read",
        "steerx_edge/profile/prefix_file.py",
        "_digest(tensors, made_by) != keys.get(",
        "None is keys.get(",
        "tests/profile/test_prefix_file.py",
    ),
    Break(
        "a stored prompt goes to one sequence only",
        PLANNING,
        "if n)\n",
        "if n < 0)\n",
        f"{TEST_PLANNING} tests/llamacpp/test_run_many.py",
    ),
    Break(
        "cells of an early exit are stored",
        "steerx_edge/llamacpp/decoding.py",
        "        if plan.depth < n_layer:\n            continue",
        "        if plan.depth < 0:\n            continue",
        "tests/llamacpp/test_run_many.py",
    ),
    Break(
        "passes of different depth share their beginning",
        PLANNING,
        "if one.depth != other.depth:",
        "if False:",
        TEST_PLANNING,
    ),
    Break(
        "there is no room for what grows",
        PLANNING,
        "n_cells + cells + sequence.growth > limits.cells",
        "n_cells + cells > limits.cells",
        TEST_PLANNING,
    ),
    Break(
        "sampling has no seed",
        SAMPLING,
        "init_dist(seed)",
        "init_dist(1)",
        "tests/llamacpp/test_generate_many.py",
    ),
    Break(
        "every text is sampled at temperature 1",
        SAMPLING,
        "init_temp(temperature)",
        "init_temp(1.0)",
        "tests/llamacpp/test_generate_many.py",
    ),
    Break(
        "a forked process computes on",
        LOCKS,
        "os.getpid() != self._process",
        "False",
        "tests/llamacpp/test_lifetimes.py -k forked",
    ),
    # ------------------------------------------------------------ evaluation
    Break(
        "the first items are used",
        SAMPLE,
        "history=user.history[-plan.items :]",
        "history=user.history[: plan.items]",
        TEST_SAMPLE,
    ),
    Break(
        "the user's own texts are drawn as others'",
        SAMPLE,
        "if item.response not in own",
        "if True",
        TEST_SAMPLE,
    ),
    Break(
        "what is the user's own has the other sign",
        FIGURES,
        '"own - generic": ("own", "generic")',
        '"own - generic": ("generic", "own")',
        TEST_EVALUATOR,
    ),
    Break(
        "a copy of two texts is a leak",
        METRICS,
        "found_in[run] == 1",
        "found_in[run] >= 1",
        TEST_METRICS,
    ),
    Break(
        "a closed gate is passed",
        "steerx_edge/steering/requests.py",
        "steering if opens else Steering()",
        "steering",
        "tests/steering/test_requests.py",
    ),
    Break(
        "neutral text is scored without the profile",
        EVALUATOR,
        "self._steered(condition, contexts, texts)",
        "self._steered(Condition(), contexts, texts)",
        TEST_EVALUATOR,
    ),
    Break(
        "with texts in the prompt a profile is as strong as alone",
        "steerx_edge/evaluation/arms.py",
        "Condition(own, with_history=True, history",
        "Condition(own, history",
        TEST_EVALUATOR,
    ),
    Break(
        "the folder of another evaluation is taken",
        RUN,
        "if lines[0] != header:",
        "if False:",
        TEST_RUN,
    ),
    # ------------------------------------------------------------ forgetting
    Break(
        "rows of other texts are forgotten too",
        FORGETTING,
        "SAME_KEY = 0.98",
        "SAME_KEY = -1",
        TEST_FORGET,
    ),
    Break(
        "the words of a forgotten text stay",
        FORGETTING,
        "ledger=None,",
        "ledger=memory.ledger,",
        "tests/test_forgetting.py",
    ),
    # ------------------------------------------------------------ drafts
    Break(
        "drafts are scored by a profile that has read them",
        FEEDBACK,
        "if place % _FOLDS != fold",
        "if True",
        TEST_FEEDBACK,
    ),
    Break(
        "drafts that change nothing are taken",
        FEEDBACK,
        "self.change.mean > 0",
        "self.change.mean >= 0",
        TEST_FEEDBACK,
    ),
    Break(
        "texts of the model are learned from",
        FEEDBACK,
        "if draft.is_edited",
        "if draft.final is not None",
        TEST_FEEDBACK,
    ),
    Break(
        "a draft that was cut off spoils the next one",
        DRAFTS,
        'line = b"\\n" + line',
        "pass",
        TEST_DRAFTS,
    ),
    Break(
        "anyone can read the drafts",
        DRAFTS,
        "path.touch(0o600)",
        "path.touch(0o644)",
        TEST_DRAFTS,
    ),
    Break(
        "the first word on a proposal counts",
        DRAFTS,
        "found.pop((draft.request, draft.proposed), None)",
        "draft = found.pop((draft.request, draft.proposed), draft)",
        TEST_DRAFTS,
    ),
    Break(
        "a forgotten text stays as what was made of a draft",
        DRAFTS,
        "plain(draft.final or draft.proposed),",
        "",
        TEST_DRAFTS,
    ),
    Break(
        "an edited answer does not take its place in the chat",
        "steerx_edge/apps/cli/chat.py",
        "if draft.is_edited:",
        "if False:",
        TEST_FEEDBACK_COMMAND,
    ),
    Break(
        "a chat keeps drafts without leave",
        "steerx_edge/apps/cli/chat.py",
        "if not keep_drafts:",
        "if False:",
        TEST_FEEDBACK_COMMAND,
    ),
    Break(
        "drafts are not forgotten",
        "steerx_edge/apps/cli/forget.py",
        "*forget_drafts(profile_path),",
        "",
        TEST_FEEDBACK_COMMAND,
    ),
    # ------------------------------------------------------------ show and explain
    Break(
        "a word of the request counts as one that the memory holds",
        f"{EXPLAINING}/held.py",
        'return "kept" if weight else "request"',
        'return "kept"',
        "tests/explaining/test_held.py",
    ),
    Break(
        "a text's gain is measured with its own rows in the memory",
        f"{EXPLAINING}/held.py",
        "kept[found.rows[found.rows != NOWHERE]] = False",
        "pass",
        "tests/explaining/test_explained_texts.py -k gain",
    ),
    Break(
        "runs that only one other text holds are completed",
        f"{EXPLAINING}/texts.py",
        "hashes[counts == 2]",
        "hashes[counts == 0]",
        "tests/explaining/test_explained_texts.py -k gain",
    ),
    Break(
        "a text is read in its own context",
        f"{EXPLAINING}/texts.py",
        "others = [*items[:begin], *items[end:]]",
        "others = [*items]",
        "tests/explaining/test_explained_texts.py -k arms",
    ),
    Break(
        "the logit bias counts as the memory's",
        f"{EXPLAINING}/answers.py",
        "biased = asked_for(guided.biased)[0] if acting.logit_bias else guided.scored",
        "biased = guided.scored",
        "tests/explaining/test_answers.py -m 'not slow'",
    ),
    Break(
        "directions are left out of what is explained",
        f"{EXPLAINING}/answers.py",
        "results[0], results[-1]",
        "results[0], results[0]",
        "tests/explaining/test_answers.py -m 'not slow'",
    ),
    Break(
        "barred rows count as sources",
        f"{EXPLAINING}/sources.py",
        "shares[tokens == token].sum() > 0",
        "True",
        "tests/explaining/test_sources.py",
    ),
    Break(
        "rows of another token are taken for a text's",
        f"{EXPLAINING}/sources.py",
        "& (memory.tokens[rows, None] == np.array(tokens))",
        "",
        "tests/explaining/test_sources.py",
    ),
    Break(
        "a text ends the data block of a page",
        "steerx_edge/report/page.py",
        'written.replace("<", "\\\\u003c")',
        "written",
        "tests/report/test_pages_in_browser.py",
    ),
    Break(
        "a page that others can read stays so",
        "steerx_edge/report/page.py",
        "target.chmod(0o600)",
        "pass",
        "tests/apps/test_show.py -k private",
    ),
    # ------------------------------------------------------------ edits, models
    Break(
        "a word is barred in a single token alone (edit)",
        "steerx_edge/steering/barred.py",
        "for place in range(len(spelling)):",
        "for place in range(1):",
        "tests/steering/test_barred.py",
    ),
    Break(
        "barred words are written where the gate is closed (edit)",
        LIVE,
        "if self._bar is not None and self._steering.never:",
        "if self._bar is not None and self._steering.never and not answer.leaves_alone:",
        "tests/live/test_live_never.py",
    ),
    Break(
        "rows of a dropped word are still offered (edit)",
        PARTS,
        "weights[np.isin(self.memory.tokens, silenced)] = 0",
        "pass",
        "tests/profile/test_editing.py",
    ),
    Break(
        "learning again forgets what the user edited (edit)",
        "steerx_edge/profile/merging.py",
        "return with_edits(changed, current.edits)",
        "return changed",
        "tests/profile/test_editing.py",
    ),
    Break(
        "added texts bring back dropped words (edit)",
        "steerx_edge/learning/adding.py",
        "with_edits(added, entry.edits)",
        "added",
        "tests/learning/test_adding.py -k dropped",
    ),
    Break(
        "edits do not go to an entry for another model (edit)",
        "steerx_edge/editing.py",
        "if entry.model.fingerprint in known:",
        "if True:",
        "tests/apps/test_everywhere.py -k another_model",
    ),
    Break(
        "projectors are listed as models (models)",
        "steerx_edge/llamacpp/model_search.py",
        "if not header.is_model or",
        "if",
        "tests/llamacpp/test_model_search.py",
    ),
    Break(
        "an exact name is not preferred (models)",
        "steerx_edge/llamacpp/model_search.py",
        "if each.name.casefold() == wanted",
        "if False",
        "tests/llamacpp/test_model_search.py",
    ),
    Break(
        "the quantization of -hf is ignored (models)",
        "steerx_edge/llamacpp/hub.py",
        "(quantization or _PREFERRED).upper()",
        "_PREFERRED",
        "tests/llamacpp/test_hub.py -k taken",
    ),
    Break(
        "the doctor finds all well (models)",
        "steerx_edge/apps/cli/doctor.py",
        "if any(problem.stops for problem in problems):",
        "if False:",
        "tests/apps/test_doctor.py -k will_not",
    ),
    Break(
        "a cosine is of other layers (diff)",
        "steerx_edge/profile/similarity.py",
        "others[layer])",
        "b.directions[0].astype(np.float64))",
        "tests/profile/test_similarity.py",
    ),
    # ------------------------------------------------------------ mail
    Break(
        "a line of a text that begins with From splits a mail",
        READERS,
        "if begins and _SEPARATOR.match(data, at)",
        "if begins",
        TEST_MAILBOXES,
    ),
    Break(
        "what was escaped for a mailbox stays so",
        READERS,
        '_ESCAPED.sub(b"", self._read(place))',
        "self._read(place)",
        TEST_MAILBOXES,
    ),
    Break(
        "a separator at the end of a piece is lost",
        READERS,
        "(_LONGEST if chunk else 0)",
        "0",
        TEST_MAILBOXES,
    ),
    Break(
        "a mail runs into the next one",
        READERS,
        "return data[:following]",
        "return data",
        TEST_MAILBOXES,
    ),
    Break(
        "the same mail is read twice",
        READERS,
        "self._seen.add(hash(head.id))",
        "pass",
        TEST_MAILBOXES,
    ),
    Break(
        "one broken mail ends the mailbox",
        READERS,
        "except Exception as error:  # `email` raises",
        "except OSError as error:  # `email` raises",
        TEST_MAILBOXES,
    ),
    Break(
        "a mail that is here is not found as the request",
        READERS,
        "parts.answered or self._parent(head)",
        "parts.answered",
        TEST_MAILBOXES,
    ),
    Break(
        "what is passed on is answered",
        READERS,
        "if not (parts.is_forward or head.is_forward):",
        "if True:",
        TEST_MAILBOXES,
    ),
    Break(
        "signatures are not learned",
        READERS,
        "text = parts.text(self._repeated)",
        "text = parts.text()",
        TEST_MAILBOXES,
    ),
    Break(
        "identities of Thunderbird are ignored",
        READERS,
        "str(source), likely=likely)",
        "str(source))",
        TEST_MAILBOXES,
    ),
    Break(
        "drafts of a Maildir are mails",
        READERS,
        "(drafts if _DRAFT.search(file.name) else mails)",
        "mails",
        TEST_MAILBOXES,
    ),
    Break(
        "the property list of Apple Mail is text",
        READERS,
        "data[size.end() : size.end() + int(size[1])]",
        "data[size.end() :]",
        TEST_MAILBOXES,
    ),
    Break(
        "a person's sign-off is a signature",
        MAIL,
        "first = min(at + 2, contact)",
        "pass",
        TEST_OWN_WORDS,
    ),
    Break(
        "a sentence before a quote introduces it",
        MAIL,
        "if _WROTE.search(told) or _NAMED.search(told) else",
        "if True else",
        TEST_OWN_WORDS,
    ),
    Break(
        "the introduction of an unmarked quote is own",
        MAIL,
        "if (end := _attribution(lines, at)) > at:",
        "if (end := at) > at:",
        TEST_OWN_WORDS,
    ),
    Break(
        "all quotes are answered, however deep",
        MAIL,
        "quoted += [Line(line.text, line.depth - 1) for line in run]",
        "quoted += [Line(line.text) for line in run]",
        TEST_OWN_WORDS,
    ),
    Break(
        "a log is text",
        MAIL,
        'without_code("\\n".join(without_ending(lines, repeated)))',
        '"\\n".join(without_ending(lines, repeated)), None',
        TEST_OWN_WORDS,
    ),
    Break(
        "lines that a program broke stay so",
        MAIL,
        "len(line) + 1 + len(first) > _WIDTH",
        "False",
        TEST_OWN_WORDS,
    ),
    Break(
        "an indented paragraph is a quote",
        MAIL,
        "is_cited or not _INDENTED.search",
        "is_cited or not _HIDDEN.search",
        "tests/history/mail/test_html.py",
    ),
    Break(
        "plain text is read where there is HTML",
        MAIL,
        "*reversed(parts)] if flowed is not None else reversed(parts)",
        "*parts] if flowed is not None else parts",
        "tests/history/mail/test_message.py",
    ),
    Break(
        "an unknown character set ends a mail",
        MAIL,
        "except (LookupError, ValueError):",
        "except ValueError:",
        "tests/history/mail/test_message.py",
    ),
    Break(
        "the space of DelSp is kept",
        MAIL,
        "stuffed[:-1] if flows and delete_space",
        "stuffed if flows and delete_space",
        "tests/history/mail/test_lines.py",
    ),
    Break(
        "who sent most is the user, received or not",
        MAIL,
        "(mails - received).most_common(1)",
        "mails.most_common(1)",
        "tests/history/mail/test_senders.py",
    ),
    Break(
        "the user is a recipient",
        MAIL,
        "if each.address not in me]",
        "if each.address]",
        "tests/history/mail/test_request.py",
    ),
    Break(
        "the beginnings of all files stay in memory",
        READERS,
        "box.files.append(Source(file.path, str(file)))",
        "box.files.append(file)",
        TEST_MAILBOXES,
    ),
    Break(
        "a mailbox keeps its byte order mark",
        READERS,
        "or data[:at] == BOM_UTF8",
        "",
        TEST_MAILBOXES,
    ),
    # ------------------------------------------------------------ server
    Break(
        "the steering of a request does not end",
        SERVER + "/worker.py",
        "stack.enter_context(self._steered(work))",
        "self._steered(work)",
        "tests/apps/server/test_profiles_served.py",
    ),
    Break(
        "the last request is answered first",
        SERVER + "/dispatcher.py",
        "job = self._running = self._waiting.popleft()",
        "job = self._running = self._waiting.pop()",
        "tests/apps/server/test_clients.py",
    ),
    Break(
        "an answer goes on without its client",
        SERVER + "/worker.py",
        "        self._connection.recv()\n        return True",
        "        return False",
        "tests/apps/server/test_clients.py -k leaves",
    ),
    Break(
        "links out of the folder are followed",
        SERVER + "/profiles.py",
        "follow_symlinks=False",
        "follow_symlinks=True",
        "tests/apps/server/test_profiles_served.py -k anew",
    ),
    Break(
        "web sites are answered",
        SERVER + "/guard.py",
        "if is_page and _host(origin) not in _LOCAL:",
        "if origin == '-':",
        "tests/apps/server/test_hostile.py -k web",
    ),
    Break(
        "a name that leads here is taken for localhost",
        SERVER + "/guard.py",
        'headers.get("host", "localhost")',
        '"localhost"',
        "tests/apps/server/test_hostile.py -k web",
    ),
    Break(
        "the beginning of a key is enough",
        SERVER + "/guard.py",
        'given.strip().encode("latin-1"), self._key.encode()',
        'given.strip().encode("latin-1")[: len(self._key.encode())], self._key.encode()',
        "tests/apps/server/test_openai.py -k key",
    ),
    Break(
        "llama.cpp prints what it cannot read",
        SERVER + "/worker.py",
        "for stream in (1, 2):",
        "for stream in ():",
        "tests/apps/server/test_hostile.py -k logged",
    ),
    Break(
        "a crash of llama.cpp ends the server's work",
        SERVER + "/dispatcher.py",
        "await self._replace(job)",
        "return",
        "tests/apps/server/test_hostile.py -k alone",
    ),
    Break(
        "a scale that was set is not used",
        SERVER + "/catalogue.py",
        "return self._scales.get(profile, 1.0)",
        "return 1.0",
        "tests/apps/server/test_profiles_served.py -k anew",
    ),
    Break(
        "log-probabilities are those of another token",
        SERVER + "/recording.py",
        "{**self._described(token, row)",
        "{**self._described(int(row.argmin()), row)",
        "tests/apps/server/test_profiles_served.py -k probabilities",
    ),
    Break(
        "the prefix is left out",
        SERVER + "/worker.py",
        'prefix=served.prefix if work.kind == "chat" else None',
        "prefix=None",
        "tests/apps/server/test_profiles_served.py -k prefix",
    ),
    # ------------------------------------------------------------ native
    Break(
        "an early exit comes a block too soon",
        "native/residual_hooks.cpp",
        "hooks.n_unread_ == 0;",
        "hooks.n_unread_ <= 1;",
        "tests/native/test_residual_hooks.py",
    ),
    Break(
        "rows are mapped to outputs one off",
        "native/residual_hooks.cpp",
        "apply(task.layer, fetched(rows.place(row)))",
        "apply(task.layer, fetched(first_row_))",
        "tests/native/test_residual_hooks.py tests/native/test_native_interventions.py",
    ),
    Break(
        "a rotation goes past the direction",
        "native/interventions.cpp",
        "std::max(0.0, now - static_cast<double>(angle_))",
        "now - static_cast<double>(angle_)",
        "tests/native/test_native_interventions.py",
    ),
    Break(
        "the mixture does not sum to 1",
        "native/mixing.cpp",
        "- std::log1p(-total)",
        "",
        "tests/native/test_mixing.py",
    ),
    Break(
        "a control vector is read one block early",
        VECTORS,
        "layer = int(match[1])\n",
        "layer = int(match[1]) and max(1, int(match[1]) - 1)\n",
        "tests/live/test_control_vectors.py",
    ),
    Break(
        "a foreign control vector leaves the prompt alone",
        VECTORS,
        'is_ours and keys.get("steerx.positions") == "generated"',
        "True",
        "tests/live/test_control_vectors.py",
    ),
    Break(
        "the direction of an imported vector is of the strength before rounding",
        VECTORS,
        "self.vectors[kept] / scales[:, np.newaxis]",
        "self.vectors[kept] / (scales[:, np.newaxis] * (1 + 1e-6))",
        TEST_VECTORS,
    ),
    Break(
        "directions of one layer replace each other",
        VECTORS,
        "by_layer[layer] + row if layer in by_layer else row",
        "row",
        TEST_VECTORS,
    ),
    Break(
        "a model file is replaced by an export",
        "steerx_edge/profile/exporting.py",
        "target.exists() and not begins_as(target, ARCHITECTURE)",
        "False",
        TEST_VECTORS,
    ),
    Break(
        "every control vector with an unsigned count is repeng's",
        PRODUCERS,
        "REPENG if count == n_directions else JUKOFYORK if count > n_directions else UNKNOWN",
        "REPENG",
        TEST_VECTORS,
    ),
    Break(
        "a sum of profiles leaves out the norm of the others",
        COMBINING,
        "* float(each.norms[j])",
        "* norm",
        TEST_COMBINING,
    ),
    Break(
        "a sum of profiles leaves out the strength of the logit biases",
        COMBINING,
        "scale = weight * entry.logit_bias.strength",
        "scale = weight",
        TEST_COMBINING,
    ),
    Break(
        "a sum of profiles keeps the memory at its old strength",
        COMBINING,
        "strength=weight * part.strength",
        "strength=part.strength",
        TEST_COMBINING,
    ),
    Break(
        "llm counts the token that ends an answer",
        CHATS,
        "usage.answer -= 1",
        "usage.answer -= 0",
        TEST_LLM,
    ),
    Break(
        "llm uses a memory that is not wanted",
        CHATS,
        "if not options.memory:",
        "if False:",
        TEST_LLM,
    ),
    Break(
        "an answer that llm leaves unread blocks all others of its thread",
        CHATS,
        "if self._owner == threading.get_ident():",
        "if self._lock.locked() and self._owner == -1:",
        f"{TEST_LLM} -k read_to_its_end --timeout 30",
    ),
]
