"""One way down: what a module may import follows from its layer."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

# From the foundation up. A module may import from its own layer's package and from the layers below that are
# named; a module or package that is not here has no layer yet and fails.
BELOW: dict[str, set[str]] = {
    "tubelet.errors": set(),
    "tubelet.files": {"tubelet.errors"},
    "tubelet.machine": {"tubelet.errors"},
    "tubelet.words": set(),
    "tubelet.patches": {"tubelet.errors"},
    "tubelet.masking": {"tubelet.errors", "tubelet.patches"},
}
FOUNDATION = set(BELOW)
BELOW["tubelet.average_precision"] = set()
BELOW["tubelet.models"] = FOUNDATION
BELOW["tubelet.data"] = FOUNDATION
BELOW["tubelet.train"] = {"tubelet.errors", "tubelet.files", "tubelet.machine"}
BELOW["tubelet.tasks"] = FOUNDATION | {"tubelet.models", "tubelet.data"}
BELOW["tubelet.interop"] = FOUNDATION | {"tubelet.models", "tubelet.data"}
BELOW["tubelet.recipe"] = set(BELOW)
BELOW["tubelet.recipe_help"] = {"tubelet.errors", "tubelet.recipe"}
BELOW["tubelet.progress"] = {"tubelet.errors"}
BELOW["tubelet.prepare"] = FOUNDATION | {"tubelet.data", "tubelet.progress"}
JOINTS = {
    f"tubelet.{name}"
    for name in (
        "build",
        "zoo",
        "published",
        "download",
        "evaluation",
        "prediction",
        "visualize",
        "report",
        "charts",
        "findings",
        "flops",
        "inspection",
        "demo",
        "bench_data",
        "bench_files",
        "bench_peers",
        "bench_report",
        "bench_stages",
    )
}
BELOW |= {joint: set(BELOW) | JOINTS for joint in JOINTS}
BELOW["tubelet.cli_prepare"] = set(BELOW)
BELOW["tubelet.cli"] = set(BELOW)
BELOW["tubelet"] = set(BELOW)  # the public face
BELOW["tubelet.__main__"] = {"tubelet.cli"}

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "tubelet").rglob("*.py"))
}


def layer_of(module: str) -> str | None:
    """The layer a module belongs to: itself, or the package that holds it."""
    part = ".".join(module.split(".")[:2])
    return part if part in BELOW else None


def imported(path: Path, module: str) -> set[str]:
    """The modules that a file imports, wherever in it and however."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {base}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_layer_and_below(module: str):
    layer = layer_of(module)
    assert layer is not None, f"{module} has no layer: give it one in {Path(__file__).name}"
    ours = {name for name in imported(MODULES[module], module) if name.split(".")[0] == "tubelet"}
    for name in ours - {"tubelet"}:
        assert layer_of(name) is not None, f"{module} imports {name}, which has no layer"
    wrong = {name for name in ours if layer_of(name) not in BELOW[layer] | {layer} and name != "tubelet"}
    assert not wrong, f"{module} is in layer {layer} and must not import {sorted(wrong)}"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tubelet.models")])
def test_models_import_torch_alone(module: str):
    roots = {name.split(".")[0] for name in imported(MODULES[module], module)}
    assert roots - sys.stdlib_module_names <= {"torch", "tubelet"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tubelet.")])
def test_only_what_joins_the_parts_may_import_the_public_face(module: str):
    allowed = JOINTS | {"tubelet.cli"}
    assert "tubelet" not in imported(MODULES[module], module) or layer_of(module) in allowed


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        ("tubelet.models.x", "tubelet.data.clips"),
        ("tubelet.data.x", "tubelet.models.encoder"),
        ("tubelet.train.x", "tubelet.tasks.classify"),
        ("tubelet.train.x", "tubelet.masking"),
        ("tubelet.masking", "tubelet.models.encoder"),
        ("tubelet.recipe", "tubelet.zoo"),
        ("tubelet.zoo", "tubelet.cli"),
    ],
)
def test_imports_upward_are_not_allowed(module: str, wrong: str):
    layer = layer_of(module)
    assert layer is not None
    assert layer_of(wrong) not in BELOW[layer] | {layer}


def test_every_way_of_importing_is_seen(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "import tubelet.zoo\n"
        "from tubelet import masking\n"
        "from ..data import clips\n"
        "from . import encoder\n"
        "def f():\n    from tubelet.train.optim import OptimConfig\n"
    )
    assert imported(path, "tubelet.models.x") == {
        "tubelet.zoo", "tubelet.masking", "tubelet.data.clips",
        "tubelet.models.encoder", "tubelet.train.optim",
    }  # fmt: skip
