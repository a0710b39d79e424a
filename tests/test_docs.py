"""The documentation matches the code."""

import re
import runpy
from pathlib import Path

import pytest
import typer

from tubelet.cli.main import app
from tubelet.models.flops import gflops_per_view, parameter_count
from tubelet.recipe.help import explain
from tubelet.recipe.loading import recipe_names
from tubelet.sweep.schema import sweep_names

ROOT = Path(__file__).parents[1]
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
TASKS = ("pretrain", "finetune", "evaluate", "predict")


@pytest.mark.slow
@pytest.mark.parametrize("page", GENERATE["PAGES"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == GENERATE["PAGES"][page](), "run `make docs`"


@pytest.mark.slow
def test_flops_and_parameters_are_the_published_ones() -> None:
    for method, size, ratio, gflops, millions in GENERATE["COSTS"]:
        model = GENERATE["classifier"](method, size, ratio)
        if gflops is not None:
            ours = gflops_per_view(model) + GENERATE["upstream_extra"](method, size, ratio)
            assert ours == pytest.approx(gflops, rel=0.004), (method, size, ratio)
        if millions is not None:
            assert parameter_count(model) / 1e6 == pytest.approx(millions, rel=0.01), (method, size, ratio)


def test_every_setting_is_explained() -> None:
    for task in TASKS:
        assert [key for key, _, _, meaning in explain(task) if not meaning] == [], task


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_commands_and_options_exist() -> None:
    """In code blocks: `tubelet VERB ...` with its options."""
    wrong = []
    for page in PAGES:
        for line in re.findall(r"^(?: {4})?tubelet (.*)", page.read_text(encoding="utf-8"), re.MULTILINE):
            command, words = typer.main.get_command(app), line.split()
            while words and words[0] in getattr(command, "commands", ()):
                command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            command = getattr(command, "commands", {}).get("run", command)  # `tubelet sweep SWEEP`
            known = {option for parameter in command.params for option in parameter.opts}
            options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words)))
            if hasattr(command, "commands") or options - known:
                wrong.append(f"{page.name}: tubelet {line}")
    assert not wrong, "no such command or option:\n" + "\n".join(wrong)


def test_settings_and_recipes_exist() -> None:
    """In code: dotted settings such as `data.root`, and recipes such as `demo/pretrain`, and sweeps."""
    settings = {re.sub(r"\[\w+\]", "", key) for task in TASKS for key, *_ in explain(task)}
    groups = "|".join(sorted({key.split(".")[0] for key in settings if "." in key}))
    families = "|".join(sorted({name.split("/")[0] for name in recipe_names()}))
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for key in re.findall(rf"(?<![\w/.])(?:{groups})(?:\.[a-z_]+)+(?=[`= ,)])", text):
            if key not in settings and not key.endswith((".py", ".md", ".jsonl", ".safetensors")):
                wrong.append(f"{page.name}: {key}")
        names = set(re.findall(rf"(?<![\w/-])(?:{families})/[a-z0-9_]+(?=[` ])", text))
        wrong += [f"{page.name}: {name}" for name in sorted(names - {*recipe_names(), *sweep_names()})]
    assert not wrong, "no such setting or recipe:\n" + "\n".join(wrong)
