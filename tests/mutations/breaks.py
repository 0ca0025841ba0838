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


GATE = "steerx_edge/steering/gate.py"
BIAS = "steerx_edge/steering/logit_bias.py"
MEMORY = "steerx_edge/steering/memory.py"
LIVE = "steerx_edge/live.py"
TYPES = "steerx_edge/profile/types.py"
JSON = "steerx_edge/profile/json_format.py"
FILES = "steerx_edge/profile/files.py"
STORE = "steerx_edge/profile/store.py"
MEMORY_FILE = "steerx_edge/profile/memory_file.py"
WORDS = "steerx_edge/history/words.py"
RETRIEVAL = "steerx_edge/history/retrieval.py"
READERS = "steerx_edge/history/readers"
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
FORGETTING = "steerx_edge/forgetting.py"

TEST_GATE = "tests/steering/test_gate.py"
TEST_BIAS = "tests/steering/test_logit_bias.py"
TEST_MEMORY = "tests/steering/test_memory.py"
TEST_LIVE = "tests/live/test_live.py"
TEST_PREDICTIONS = "tests/live/test_live_predictions.py"
TEST_TYPES = "tests/profile/test_types.py"
TEST_JSON = "tests/profile/test_json_format.py"
TEST_STORE = "tests/profile/test_store.py"
TEST_MEMORY_FILE = "tests/profile/test_memory_file.py"
TEST_WORDS = "tests/history/test_words.py"
TEST_FORMATS = "tests/history/test_formats.py"
TEST_RETRIEVAL = "tests/history/test_retrieval.py"
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
        "ids[n_prompt:]",
        "ids",
        f"{TEST_PREDICTIONS} -k 'counts_as_written or score_requests'",
    ),
    Break(
        "an answer that is left alone is biased",
        LIVE,
        "if answer.leaves_alone:\n            return logits",
        "if False:\n            return logits",
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
        TYPES,
        "scaled = float(strength)",
        "scaled = -float(strength)",
        TEST_TYPES,
    ),
    Break(
        "a direction of any length is taken",
        TYPES,
        "> _UNIT_TOLERANCE",
        "> 1e9",
        TEST_JSON,
    ),
    Break(
        "layers that the model does not have are taken",
        TYPES,
        "if not below < layer < self.model.n_layer",
        "if not below < layer",
        TEST_JSON,
    ),
    Break(
        "with texts in the prompt the strengths are the usual ones",
        TYPES,
        "strengths=found.strengths",
        "strengths=self.strengths",
        TEST_TYPES,
    ),
    Break(
        "the memory has the strength of the command alone",
        TYPES,
        "ActiveMemory(self.memory, float(scaled))",
        "ActiveMemory(self.memory, float(strength))",
        TEST_TYPES,
    ),
    Break("a key may be there twice", JSON, "if key in members:", "if False:", TEST_JSON),
    Break(
        "unknown keys are passed over",
        JSON,
        "forbid_unknown_fields=True",
        "forbid_unknown_fields=False",
        TEST_JSON,
    ),
    Break(
        "terminal escapes get into words",
        JSON,
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
        "temporary.unlink(missing_ok=True)",
        "pass",
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
    Break("a byte order mark is text", READERS, '"utf-8-sig"', '"utf-8"', TEST_HISTORY),
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
        READERS,
        "(?<=[^\\n]\\n){_STAMP}",
        "{_STAMP}",
        TEST_FORMATS,
    ),
    Break(
        "a mailbox in another encoding has no name",
        READERS,
        'self._data.decode(_encoding_of(self._data), "replace")',
        '""',
        TEST_FORMATS,
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
        "return _name_of(source) is not None",
        "return False",
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
        "_SAME = 0.98",
        "_SAME = -1",
        TEST_FORGET,
    ),
    Break(
        "the words of a forgotten text stay",
        FORGETTING,
        "ledger=None,",
        "ledger=memory.ledger,",
        "tests/test_forgetting.py",
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
]
