"""The page of a training run: one HTML file that contains everything it shows and needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass

from tubelet.report.charts import NUM_COLORS, curves_chart, last_point
from tubelet.report.contents import Chart, Picture
from tubelet.report.page import environment


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Everything on the page. Sections without content are left out.

    Attributes:
        title: of the page.
        lead: one paragraph: what was trained on what.
        caution: what a reader must know before the numbers, or an empty text.
        key_figures: (value, unit, meaning) of the most important numbers.
        charts: curves over the epochs.
        pictures: animations of original, masked and reconstructed clips.
        data: (name, value) of the videos and how often they were seen.
        broken: the videos that could not be read, with the reason.
        num_broken: how many there are, of which `broken` may have only the first.
        speed: (name, value) of throughput and waiting.
        advice: what would make it faster, or an empty text.
        recipe: the settings as YAML.
        facts: (name, value), such as times and versions.
    """

    title: str
    lead: str
    caution: str = ""
    key_figures: Sequence[tuple[str, str, str]] = ()
    charts: Sequence[Chart] = ()
    pictures: Sequence[Picture] = ()
    data: Sequence[tuple[str, str]] = ()
    broken: Sequence[str] = ()
    num_broken: int = 0
    speed: Sequence[tuple[str, str]] = ()
    advice: str = ""
    recipe: str = ""
    facts: Sequence[tuple[str, str]] = ()


def render_run(page: RunPage) -> str:
    """Return the page as HTML, which depends only on its contents."""
    names = dict.fromkeys(curve.name for chart in page.charts for curve in chart.curves)
    colors = {name: k % NUM_COLORS for k, name in enumerate(names)}
    charts = [(chart, curves_chart(chart, colors)) for chart in page.charts]
    template = environment().get_template("run.html")
    return template.render(page=page, charts=charts, colors=colors, last_point=last_point)
