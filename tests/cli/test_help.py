"""The help of every verb, rendered at 80 columns."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tubelet.cli.help import description_and_examples
from tubelet.cli.main import app
from tubelet.recipe.loading import evaluate_recipe, load_recipe, predict_recipe
from tubelet.run.video_files import separate_settings
from tubelet.sweep.schema import sweep_text

ROOT: Any = typer.main.get_command(app)
MAX_LINES = 24
TALLER = {
    "tubelet": 36,
    "tubelet prepare list": 46,
    "tubelet evaluate": 28,
    "tubelet embed": 28,
    "tubelet predict": 30,
}
"""The list of all verbs, and verbs with more options than a screen has lines."""


def commands(command: Any = ROOT, path: str = "tubelet") -> Iterator[tuple[str, Any]]:
    """Yield every command with its path, groups included."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def test_every_help_fits_a_screen_and_has_two_examples(tubelet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for path, _ in commands():
        code, out, _ = tubelet(*path.split()[1:], "--help")
        lines = out.splitlines()
        assert code == 0, path
        assert max(map(len, lines)) <= 80, path
        assert len(lines) <= TALLER.get(path, MAX_LINES), (path, len(lines))
        examples = lines[lines.index("Examples:") + 1 :]
        assert len(examples) == 2, path
        assert all(line.startswith("  tubelet ") for line in examples), path
        assert "<" not in out, path
        assert "]..." not in out, path


def test_every_example_parses() -> None:
    for _, command in commands():
        for example in description_and_examples(command.help)[1]:
            words = shlex.split(example.partition(" > ")[0])[1:]
            parse(ROOT, words)


def parse(command: Any, words: list[str]) -> None:
    """Parse an example down to its verb, and its settings with the verb's own recipe."""
    context = command.make_context(command.name or "tubelet", list(words))
    if hasattr(command, "commands"):
        _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(inner, rest)
    elif command.name in ("pretrain", "finetune", "show") and "settings" in context.params:
        load_recipe(words[0], *(context.params["settings"] or ()))
    elif command.name == "show":
        sweep_text(words[0])
    elif command.name == "evaluate":
        evaluate_recipe(*(context.params["settings"] or ()))
    elif command.name == "predict":
        predict_recipe(*separate_settings(context.params["videos"])[1])


def test_verbs_with_settings_say_where_they_are_listed(tubelet) -> None:
    for verb in ("pretrain", "finetune", "evaluate", "predict"):
        words = " ".join(tubelet(verb, "--help")[1].split())
        assert f"`tubelet recipe help {verb}`" in words
        assert tubelet("recipe", "help", verb)[0] == 0
    assert "optim.epochs" not in tubelet("evaluate", "--help")[1]


def test_options_for_checkpoint_files_are_explained_once(tubelet) -> None:
    explained = tubelet("inspect", "--help")[1]
    assert "--heads N          Attention heads of the encoder." in explained
    for verb in ("evaluate", "predict", "visualize", "convert"):
        out = tubelet(verb, "--help")[1]
        assert "--heads N, --decoder-heads N" in " ".join(out.split())
        assert "Attention heads" not in out
