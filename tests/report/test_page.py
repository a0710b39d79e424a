import re
from base64 import b64encode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from tubelet.report.contents import Chart, Curve, DemoReport, Picture, Result, WorstClip
from tubelet.report.page import render, write_report

WEBP, STRIP = b"RIFF-not-really", b"RIFF-of-a-strip"
REPORT = DemoReport(
    title="Five things & more",
    lead="Reconstructing 90 % of a clip teaches <much>.",
    results=[
        Result("VideoMAE", "pre-trained", 0, 0.9167, 0.9958, 1.2444, 5_312_460, 412.3, "2 x 1", True),
        Result("the same", "from scratch", 0, 0.6958, 0.9604, 1.2444, 5_312_460, 411.8, "2 x 1"),
        Result("MAR half", "MAR", 0.5, 0.9021, 0.9938, 0.6312, 7_104_780, 701.4, "5 x 3", True),
        Result("MAR quarter", "MAR", 0.75, 0.8583, 0.9896, 0.3408, 7_104_780, 1093.0, "2 x 1"),
    ],
    charts=[
        Chart(
            "Accuracy",
            "epoch",
            "Top-1 in $ or $$ <b>",
            [Curve("pre-trained", [1, 2, 3], [20, 50, 91.25]), Curve("costs $5 or $6 <b>", [1, 2], [10, 20])],
        ),
        Chart("Loss", "epoch", "error", [Curve("loss", [1, 2, 3], [0.9, float("nan"), 0.427])]),
    ],
    reconstructions=[Picture("left & right", WEBP, "image/webp")],
    confusion=np.array([[7, 2, 0], [0, 9, 0], [1, 0, 8]]),
    classes=("<b>&", "up", "down"),
    confusion_of="VideoMAE",
    worst=[WorstClip("test/007.mp4", "<b>&", "up", 0.987, STRIP)],
    recipes=[("demo/pretrain", "task: pretrain  # <here>\n")],
    facts=[("Machine", "two cores"), ("Commit", "4f1c2ab")],
    broken=["test/013.mp4: no moov"],
    tested=27,
)
SECTIONS = [
    "Results",
    "Accuracy over compute",
    "Learning curves",
    "Reconstructions",
    "Confusion matrix",
    "Worst clips",
    "Recipes",
    "About this run",
]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects headings, texts, table cells and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)
        if "h2" in self.open:
            self.headings[-1] += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def html() -> str:
    return render(REPORT)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_all_sections_in_order(page: Page) -> None:
    assert page.headings == SECTIONS
    assert "Five things & more" in page.texts
    assert "Reconstructing 90\N{NO-BREAK SPACE}% of a clip teaches <much>." in page.texts


def test_page_needs_nothing_else(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset"):
                assert value is not None
                assert value.startswith(("data:", "#"))
    assert "http" not in html
    assert "@import" not in html
    assert f"data:image/webp;base64,{b64encode(WEBP).decode()}" in html
    assert f"data:image/webp;base64,{b64encode(STRIP).decode()}" in html


def test_table_of_results(html: str, page: Page) -> None:
    assert [row for row in page.rows if row[0].startswith(("VideoMAE", "the same", "MAR"))] == [
        ["VideoMAE", "0", "91.7", "99.6", "1.24", "5.31", "412", "2 × 1"],
        ["the same", "0", "69.6", "96.0", "1.24", "5.31", "412", "2 × 1"],
        ["MAR half", "50", "90.2", "99.4", "0.631", "7.10", "701", "5 × 3"],
        ["MAR quarter", "75", "85.8", "99.0", "0.341", "7.10", "1,093", "2 × 1"],
    ]
    for best in ("91.7", "99.6", "0.341", "1,093"):
        assert html.count(f"<strong>{best}</strong>") == 1
    assert html.count("<strong>") == 4
    for text in (
        "measured in this run",
        "One multiply-add counts as one",
        "over 27 videos",
        "right 33.3\N{NO-BREAK SPACE}%",
    ):
        assert text in page.text


def test_key_figures_are_the_highlights(html: str) -> None:
    key = html[html.index('<dl class="key">') : html.index("</header>")]
    assert key.count("<dd>") == 2
    assert "91.7" in key
    assert "90.2" in key
    plain = replace(REPORT, results=[replace(result, highlight=False) for result in REPORT.results])
    key = render(plain)
    key = key[key.index('<dl class="key">') : key.index("</header>")]
    assert key.count("<dd>") == 1
    assert "91.7" in key


def test_headers_have_a_scope_and_images_a_text(page: Page) -> None:
    for tag, attributes in page.tags:
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


def test_charts(html: str, page: Page) -> None:
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert len(labels) == 3
    assert "MAR half 90.2 % at 0.631" in str(labels[0])
    for text in ("50%", "75%", "0.427", "GFLOPs per view", "Top-1 in $ or $$ <b>"):
        assert text in page.texts
    for legend in ("pre-trained 91.2", "costs $5 or $6 <b> 20.0"):
        assert legend in page.texts
    assert "nan" not in html[html.index("<svg") : html.rindex("</svg>")]
    assert not re.findall(r"#0\d0000|#00ff", html)  # every placeholder is replaced by a color of the page


def test_ids_are_unique(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_broken_videos_are_named_with_the_denominator(page: Page) -> None:
    assert "Not readable at test and in no number on this page: 1 of 28 videos." in page.text
    assert "test/013.mp4: no moov" in page.texts
    assert "on this page: 1 video." in Page(render(replace(REPORT, tested=None))).text


def test_confusion_matrix(html: str, page: Page) -> None:
    assert page.rows[-3:] == [["<b>&", "7", "2", ""], ["up", "", "9", ""], ["down", "1", "", "8"]]
    assert 'class="wrong" style="--share: 0.32" title="22%">2<' in html
    assert "Most often confused: <b>& → up (2), down → <b>& (1)." in page.text


def test_a_confusion_matrix_without_mistakes() -> None:
    report = replace(REPORT, confusion=np.diag([3, 0, 5]))
    assert "All videos were classified correctly." in render(report)


def test_a_large_confusion_matrix_shows_the_hardest_classes() -> None:
    counts = np.eye(60, dtype=int) * 5
    counts[40:50, 3] = 4
    page = Page(render(replace(REPORT, confusion=counts, classes=[f"class {k}" for k in range(60)])))
    shown = [row for row in page.rows if row[0].startswith("class ") and row[0][6:].isdigit()]
    assert len(shown) == 24
    assert {f"class {k}" for k in (3, *range(40, 50))} <= {row[0] for row in shown}
    assert "24 of 60 classes" in page.text


def test_text_is_escaped(html: str) -> None:
    assert "&lt;b&gt;&amp;" in html
    assert "<b>&" not in html.replace("<b>&lt;", "")  # the template itself has bold text
    assert "<here>" not in html
    assert "<much>" not in html
    assert "# <here>" in unescape(html)


@pytest.mark.slow
def test_sections_without_content_are_left_out() -> None:
    for field, empty, section in (
        ("charts", (), "Learning curves"),
        ("reconstructions", (), "Reconstructions"),
        ("confusion", None, "Confusion matrix"),
        ("worst", (), "Worst clips"),
        ("recipes", (), "Recipes"),
        ("facts", (), "About this run"),
    ):
        report = replace(REPORT, **{field: empty})  # type: ignore[arg-type]
        assert Page(render(report)).headings == [name for name in SECTIONS if name != section], field


def test_nothing_but_a_title() -> None:
    page = Page(render(DemoReport("A title", "A lead.", [])))
    assert page.headings == []
    assert page.text.split() == ["A", "title", "A", "title", "A", "lead."]


def test_one_result_has_no_trade_off() -> None:
    page = Page(render(DemoReport("A title", "A lead.", REPORT.results[:1])))
    assert page.headings == ["Results"]


def test_compute_that_differs_widely_is_on_a_logarithmic_axis() -> None:
    large = replace(REPORT.results[0], name="giant", gflops=180.0)
    texts = Page(render(DemoReport("A title", "A lead.", [*REPORT.results, large]))).texts
    assert {"0.5", "1", "2", "5", "10", "20", "50", "100"} <= set(texts)


def test_a_curve_of_one_epoch_is_visible() -> None:
    chart = Chart("Short", "epoch", "loss", [Curve("a", [1], [0.5])])
    html = render(DemoReport("A title", "A lead.", [], [chart]))
    assert "<use " in html  # a marker


def test_curves_without_points() -> None:
    empty = Chart("Soon", "epoch", "loss", [Curve("a", [], []), Curve("b", [1], [float("nan")])])
    assert "Soon" in Page(render(replace(REPORT, charts=[empty]))).texts


def test_same_report_same_page_and_no_global_state(html: str) -> None:
    before = dict(matplotlib.rcParams)
    assert render(REPORT) == html
    assert dict(matplotlib.rcParams) == before


def test_names_that_are_not_text_are_escapes(tmp_path: Path) -> None:
    write_report(replace(REPORT, title="\udcff.npz"), tmp_path / "report.html")
    assert r"\udcff.npz" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_written_whole_or_not_at_all(html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(REPORT, path)
    assert path.read_text(encoding="utf-8") == html
    assert list(path.parent.iterdir()) == [path]

    def full(self: Path, *args: object, **options: object) -> None:
        self.touch()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(replace(REPORT, title="Other"), path)
    assert path.read_text(encoding="utf-8") == html
    assert list(path.parent.iterdir()) == [path]
