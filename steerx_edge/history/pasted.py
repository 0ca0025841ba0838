"""Code and logs: what people paste into their texts, and do not write."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import groupby

import regex

PASTED = "pasted code or log"
"""Why code is left out."""

_NAME = r"[A-Za-z_$][\w$]*"
_CALLED = rf"{_NAME}(?:(?:\.|::|->){_NAME})*"
_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|FATAL|CRITICAL|SEVERE)"
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d+)?Z?"

# Lines that nobody writes as prose: one of them may stand alone.
_TELLING = (
    # Logs and traces.
    rf"\[?\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}.*",
    rf"\[?(?:[A-Z][a-z]{{2}} +\d{{1,2}} )?{_CLOCK}\]? .*\b(?:{_LEVEL}|\w+\[\d+\]:).*",
    rf"\[?{_LEVEL}(?:\]|:|\s-|\s\[).*",
    r"Traceback \(most recent call last\):.*",
    r'File "[^"]+", line \d+.*',
    rf"at {_CALLED}\S* ?\(.*\)",
    r"(?:Exception in thread|Caused by:|Uncaught) .*",
    rf"(?:\w+: )?(?:{_CALLED}\.)?\w+(?:Error|Exception):.*",
    r"\S+:\d+(?::\d+)?: (?:error|warning|note|fatal error):.*",
    r"\S+ - - \[\d\d/\w{3}/\d{4}.*",
    # Shells and interpreters.
    r"\$ [\w./~-]+.*|[\w.-]+@[\w.-]+:\S*[$#] .*|(?:>>>|In \[\d+\]:) .*",
    r"make(?:\[\d+\])?: .*|(?:ba|z)?sh: .*",
    r"PS [A-Z]:\\.*>.*|[A-Z]:\\[^>]*>.*",
    r"(?:sudo|pip3?|npm|git|docker|kubectl|apt(?:-get)?|curl|wget)"
    r" (?:-\S+|install|run|clone|push|pull|get) .*",
    # Changes of files.
    r"diff --git .*|@@ -\d.* @@.*|(?:---|\+\+\+) [ab]/\S+",
    # Programs and markup.
    r"#(?:!/|include\b|define\b|ifdef\b|ifndef\b|endif\b).*|<\?(?:php|xml)\b.*|<!DOCTYPE\b.*",
    r"(?:from [\w.]+ )?import [\w.*{}, ]+(?: from ['\"].*| as \w+)?;?|using [\w.:]+;",
    rf"(?:async )?def {_NAME}\(.*|class {_NAME}\s*(?:[:({{].*)?|fn {_NAME}[(<].*|func .*\{{",
    rf"(?:export |default |async )*function\*? ?{_NAME}? ?\(.*",
    rf"(?:export )?(?:const|let|var|val) {_NAME}(?:\s*:.*)?\s*=.*",
    r"(?:public|private|protected|static|final|virtual|inline) .*[({;=].*",
    r"(?i:SELECT\b.+\bFROM|INSERT INTO|CREATE (?:TABLE|INDEX|VIEW)|ALTER TABLE|UPDATE \w+ SET"
    r"|DELETE FROM)\b.*",
    r"(?:\} ?)?(?:if|else if|for|foreach|while|switch|catch) ?\(.*\) ?[:{]?",
    r"(?:async )?for \w+(?:, ?\w+)* in .+:|(?:if|elif|while) .*(?:[=!<>]=|\b(?:not|in|is)\b|\().*:",
    rf"{_CALLED}\([^()]*(?:\([^()]*\)[^()]*)*\)[;:{{]",
    rf"{_CALLED}(?:\[.*\])? ?(?:[-+*/|&.:]?=|<-) ?\S.*;",
    r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>(?:.*</[A-Za-z][\w:-]*>)?",
    r".*\S ?\{",
    r"\}(?: ?else.*| ?catch.*|\)?;?,?)?|\]\)?[;,]|\)[;,]",
    r"[\"'][\w .$-]+[\"'] ?: ?(?:[\"'{\[\d-].*|true,?|false,?|null,?)",
)
# Lines that are code among code, and may be prose elsewhere.
_COMPATIBLE = (
    rf"{_CALLED}(?:\[.*\])? ?(?:[-+*/|&.:]?=|<-) ?\S.*",
    rf"(?:await |return |yield |throw |raise |print ).*|{_CALLED}\(.*\)",
    r"(?:return|break|continue|pass|end|done|fi|then|else|begin|do|try|finally)[:;]?",
    r"(?:if|elif|while|except|with) .+:",
    r"(?:#|//|/\*|\*/?|--|;;) ?.*",
    r"[{}\[\]();,]+",
    r".*[;{}\\]",
    r"[.\w-]+ ?\{",
    r"[\w-]+ ?: .*[;,]",
    r"[-+] ?\S.*[;{}()\[\]=].*",
    r"[\w.-]+ ?[=:] ?[\w./:\"'-]+",
    r"\.{3} .*|\d+ more",
    r"[-|+=]{4,}.*|\|.*\|",
    r"(?:@|\.)\w+(?:\(.*\))?",
)
_IS_TELLING = regex.compile("|".join(f"(?:{pattern})" for pattern in _TELLING))
_IS_COMPATIBLE = regex.compile("|".join(f"(?:{pattern})" for pattern in _COMPATIBLE))
_FENCED = regex.compile(
    r"^[ ]*(```+|~~~+)[^`\n]*\n(?:.*\n)*?[ ]*\1[`~]*[ ]*(?:\n|\Z)", regex.MULTILINE
)
_BLANK = regex.compile(r"\n\s*\n")
# Brackets of programs, operators, and names that are joined by dots or underscores, or called.
_SIGN = regex.compile(
    r"[{}=\\$]|;$|\w\[|\]\)|[a-z\d]\(|[a-z]::?[a-z]|->|</|/>|[a-z]\w\.[a-z]|[a-z]_[a-z\d]"
    r"|[\"')]\)|\*\w",
    regex.MULTILINE,
)
_URL = regex.compile(r"\]?\(?\bhttps?://\S+")
_VISIBLE = regex.compile(r"\S")
_DENSE = 0.06  # signs to a visible character
_LEAST_DENSE = 100  # visible characters, on three lines or more
_FEWEST = 3  # lines of code in a row, in a paragraph
_MOST = 400  # characters of a line, and lines of a text, that are looked at


def is_code(text: str) -> bool:
    """Return whether a text is code or a log rather than prose, by its lines.

    Two in three lines must be of a form that code and logs have, and one in four, at least one, of
    a form that prose does not have; indented lines below such a line belong to it. Or three lines
    or more are full of brackets and operators.

    Args:
        text: A message or a paragraph, without other text around it.
    """
    lines = [line for line in text.split("\n", _MOST)[:_MOST] if line.strip()]
    forms = _forms_of(lines)
    telling = forms.count(_Form.TELLING)
    compatible = forms.count(_Form.COMPATIBLE)
    if 3 * (telling + compatible) >= 2 * len(lines) and telling and 4 * telling >= len(lines):
        return True
    return len(lines) >= 3 and _is_dense("\n".join(lines))


class _Form(Enum):
    """What the form of a line says."""

    PROSE = 0
    COMPATIBLE = 1
    TELLING = 2


def _forms_of(lines: Sequence[str]) -> list[_Form]:
    forms: list[_Form] = []
    for line in lines:
        bare = line.strip()[:_MOST]
        if _IS_TELLING.fullmatch(bare):
            forms.append(_Form.TELLING)
        elif _IS_COMPATIBLE.fullmatch(bare) or (
            line[:1] in {" ", "\t"} and forms and forms[-1] is not _Form.PROSE
        ):
            forms.append(_Form.COMPATIBLE)
        else:
            forms.append(_Form.PROSE)
    return forms


def _is_dense(text: str) -> bool:
    """Whether a text is full of the signs that programs are made of."""
    without_links = _URL.sub("", text)
    size = len(_VISIBLE.findall(without_links))
    return size >= _LEAST_DENSE and len(_SIGN.findall(without_links)) > _DENSE * size


def without_code(text: str) -> tuple[str, list[str]]:
    """Cut code and logs out of a text.

    Returns:
        The text without code between fences (three back quotes or tildes), without the paragraphs
        that are code (`is_code`), and without three or more lines in a row of other paragraphs
        that have its form; and what was cut.
    """
    cut: list[str] = []

    def _cut(found: regex.Match[str]) -> str:
        cut.append(found.group().strip())
        return "\n\n"

    paragraphs = _BLANK.split(_FENCED.sub(_cut, text) if "```" in text or "~~~" in text else text)
    own: list[str] = []
    n_fenced = len(cut)
    for paragraph in paragraphs:
        if paragraph.strip() and is_code(paragraph):
            cut.append(paragraph)
        else:
            own.append(_without_runs(paragraph, cut))
    if len(cut) == n_fenced == 0:
        return text, []
    return "\n\n".join(paragraph for paragraph in own if paragraph.strip()), cut


def _without_runs(paragraph: str, cut: list[str]) -> str:
    """Move lines that are code among lines that are not to those that are cut."""
    lines = paragraph.split("\n")
    if len(lines) <= _FEWEST:
        return paragraph
    kept: list[str] = []
    pairs = zip(_forms_of(lines), lines, strict=True)
    for is_prose, group in groupby(pairs, key=lambda pair: pair[0] is _Form.PROSE):
        run = [line for _, line in group]
        if is_prose or len(run) < _FEWEST or not is_code("\n".join(run)):
            kept += run
        else:
            cut.append("\n".join(run))
    return "\n".join(kept)
