"""The page of a test: one HTML file that contains everything it shows and needs no network."""

from tubelet.report.charts import calibration_chart
from tubelet.report.contents import EvaluationPage
from tubelet.report.page import confusion_table, environment

_MAX_ROWS = 30  # of the classes; the others are folded


def render_evaluation(page: EvaluationPage) -> str:
    """Return the page as HTML, which depends only on its contents."""
    return (
        environment()
        .get_template("evaluation.html")
        .render(
            page=page,
            confusion=confusion_table(page.confusion, page.classes),
            calibration=calibration_chart(page.calibration) if page.calibration else None,
            row_groups=[page.rows[:_MAX_ROWS], page.rows[_MAX_ROWS:]],
        )
    )
