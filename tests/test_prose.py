"""Plain technical English: the phrases that readers stumble over, and what to write instead."""

import re
import tokenize
from bisect import bisect_right
from io import StringIO
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ = ("*.md", "Makefile", "docs/*.md", "docs/*.py", "benchmarks/**/*.py", "src/**/*.*")

# Whole words in any case -> what to write instead. Names are prose too: they are split into their words.
PHRASES = {
    r"paint(s|ed|er|ers|ing|ings)?(?!-order)": "reconstruct, predict; of a chart or a page: draw",
    r"several(?= ?[:=(\[])": "multi_label, num_classes",
    r"elsewhere": "remote; or say where",
    r"there (is|are|was|were) none|could not be had|lacks?": "missing, not found, there is no X, has no X",
    r"(?<!there )(?<!\d )(is|are|was|were) no(?! (longer|more|less|fewer)\b)": "is not a",
    r"(?<!\.)(tells?|telling)(?!\()|told|untold": "record, specify, report, indicate; distinguish A from B",
    r"lies?|lying": "be, be in, be at, be stored in",
    r"(go|goes|going|gone|went) on": "resume, continue",
    r"anew": "again, from scratch",
    r"likewise|as there(?! (is|are|was|were)\b)": "the same (say what)",
    r"of (its|their|your|our) own(?=[^\w ]| (and|or|in|that|which|are|is|has|as|to)\b| $)": "its own X",
    r"what (has )?(came|comes|become|becomes|became) of": "result, outcome",
    r"(get|gets|got|getting) hold": "read, load, fetch, download",
    r"(?<!on its )(?<!on their )alone": "only; by itself",
    r"(?<!\bin )(?<!\btake )(?<!\btakes )(?<!\bdecimal )places?": "index, position, path, rank; verb: put",
    r"(fall|falls|fell|fallen) over|let(s|ting)? go|(take|takes|took|taken)( \w+){0,2} down": "crash, hang",
    r"in hand|in vain|be it that|but for|so many of|whatever": "say it in a plain clause",
    r"(is|are|was|were) there already": "already exists",
    r"spelt|learnt|whilst|amongst|judgement|ageing": "US spelling",
    r"(artefact|defence|licence|programme|catalogued|centre|metre|fibre|analys(ed|ing))s?": "US spelling",
    r"\w*(label|model|travel|signal|channel|level)l(ed|ing)|grey\w*": "US spelling (labeled, gray)",
    r"\w*(col|behavi|neighb|fav|hon|lab|harb)our\w*": "US spelling (-or)",
    r"\w*(recogn|normal|initial|optim|organ|visual|serial|real|util|general|parametr|parameter|minim|maxim|summar"
    r"|special|synchron|random|quant|token|vector|regular|standard|memor|emphas|capital|categor|custom|final|equal"
    r"|character|local|priorit)is(e|ed|es|er|ers|ing|ation|ations)": "US spelling (-ize)",
}


def words(line: str) -> str:
    """Return the words of a line: without quotes and comment signs, names split at `_` and at capitals."""
    line = re.sub(r"\b[rfb]{1,2}(?=[\"'])", "", line)
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])|[_\"#*`]+", " ", line).split())


def find(text: str) -> list[tuple[int, str, str]]:
    """Return (line number, phrase, what to write instead) of each listed phrase, also across line ends."""
    lines = [words(line).lower() + " " for line in text.splitlines()]
    starts, joined = list(accumulate(map(len, lines), initial=0)), "".join(lines)
    return sorted(
        (bisect_right(starts, hit.start()), hit.group(), instead)
        for phrase, instead in PHRASES.items()
        for hit in re.finditer(rf"\b(?:{phrase})(?!\w)", joined)
    )


def without_data(source: str) -> str:
    """Return a program's names, docstrings and comments, at their lines; other strings are data."""
    lines, before = [""] * (source.count("\n") + 1), ""
    for token in tokenize.generate_tokens(StringIO(source).readline):
        is_name = token.type == tokenize.NAME and before != "."  # attributes may be another library's
        if is_name or token.type == tokenize.COMMENT or (token.type == tokenize.STRING and not before):
            for line, text in enumerate(token.string.splitlines(), token.start[0] - 1):
                lines[line] += f" | {text}" if is_name else text
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            before = ""
        elif token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.string
    return "\n".join(lines)


def test_phrases():
    wrong = (
        "goes\n    # on", '"of its "\n    f"own"', "class CropPainter:", "def is_no_file():", "_TOLD = 1",
        "--unlabelled", "It is no video.", "Recognise", "several: int | None", "takes its worker down",
    )  # fmt: skip
    right = (
        "file.tell()", "f = file.tell", "there is no file", "is no longer", "-1 is no class", "on its own",
        "of its own frames", "as many as there are", "in place", "several files", "paint-order: x", "precise",
    )  # fmt: skip
    assert [text for text in wrong if not find(text)] == []
    assert [text for text in right if find(text)] == []


def test_prose():
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {instead}"
        for path in sorted({path for pattern in READ for path in ROOT.glob(pattern)})
        if path.is_file() and path.suffix != ".pyc"
        for line, phrase, instead in find(path.read_text(encoding="utf-8"))
    ]
    hits += [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {instead}"
        for path in sorted(ROOT.glob("tests/**/*.py"))
        for line, phrase, instead in find(without_data(path.read_text(encoding="utf-8")))
    ]
    assert not hits, f"{len(hits)} phrases to replace:\n" + "\n".join(hits)
