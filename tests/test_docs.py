"""The documentation says what the code does."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_of_settings_is_up_to_date() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == generate["settings"]()


def test_every_setting_is_explained() -> None:
    from tubelet.recipe_help import explain

    for task in ("pretrain", "finetune", "evaluate"):
        unexplained = [key for key, _, _, meaning in explain(task) if not meaning]
        assert unexplained == []
