"""One way down: what a module may import follows from the floor of its package."""

import ast
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"

# From the ground up. A module may import from its own package and from every floor under its own. A package
# that is not listed here fails the build.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"files", "machine", "progress", "settings", "patches"}),
    frozenset({"masking", "clips"}),
    frozenset({"models", "video"}),
    frozenset({"data", "train"}),
    frozenset({"tasks", "checkpoints", "prepare", "results"}),
    frozenset({"recipe"}),
    frozenset({"run"}),
    frozenset({"report"}),
    frozenset({"demo", "bench", "sweep"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "tubelet").rglob("*.py"))
}


def floor_of(module: str) -> int | None:
    """The number of the floor that a module is on; None if its package has none."""
    package = module.split(".")[1]
    return next((k for k, floor in enumerate(FLOORS) if package in floor), None)


def may_import(module: str, other: str) -> bool:
    """Whether `module` may import `other`: its own package or a lower floor."""
    package, theirs = module.split(".")[1], other.split(".")[1]
    mine, below = floor_of(module), floor_of(other)
    assert mine is not None
    assert below is not None
    return package == theirs or below < mine


@cache
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


def ours(module: str) -> set[str]:
    return {name for name in imported(MODULES[module], module) if name.split(".")[0] == "tubelet"}


def test_every_module_has_a_floor():
    homeless = [module for module in MODULES if "." in module and floor_of(module) is None]
    assert not homeless, f"give these packages a floor in {Path(__file__).name}: {homeless}"


def test_modules_import_from_their_own_package_and_lower_floors():
    wrong = [
        f"{module} -> {other}"
        for module in MODULES
        if "." in module
        for other in ours(module) - {"tubelet"}
        if not may_import(module, other)
    ]
    assert not wrong, f"imports upward, or between packages of one floor: {wrong}"


def test_no_module_imports_the_public_face():
    assert [module for module in MODULES if "tubelet" in ours(module)] == []


def test_imports_have_no_circle():
    left = {module: ours(module) - {module, "tubelet"} for module in MODULES if module != "tubelet"}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert not left, f"these import each other in a circle: {sorted(left)}"


def test_two_things_of_a_package_have_different_names():
    modules_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if "." in module and isinstance(node, ast.ClassDef | ast.FunctionDef):
                modules_of[module.split(".")[1], node.name].add(module)
    assert {name: sorted(modules) for name, modules in modules_of.items() if len(modules) > 1} == {}


def test_models_import_only_torch():
    for module in MODULES:
        if module.startswith("tubelet.models"):
            roots = {name.split(".")[0] for name in imported(MODULES[module], module)}
            assert roots - sys.stdlib_module_names <= {"torch", "tubelet"}, module


def test_at_most_ten_files_are_at_the_top():
    assert len(list((SOURCE / "tubelet").glob("*.py"))) <= 10


def test_the_folders_of_the_tests_are_those_of_the_source():
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert [str(folder) for folder in folders if not (SOURCE / "tubelet" / folder).is_dir()] == []
    packages = {Path(module.split(".")[1]) for module in MODULES if module.count(".") > 1}
    assert packages <= folders, f"there are no tests of {packages - folders}"


def test_imports_upward_are_not_allowed():
    for module, wrong in (
        ("tubelet.models.x", "tubelet.data.dataset"),
        ("tubelet.models.x", "tubelet.video.reader"),
        ("tubelet.data.x", "tubelet.train.loop"),
        ("tubelet.train.x", "tubelet.tasks.classify"),
        ("tubelet.masking", "tubelet.models.encoder"),
        ("tubelet.recipe.x", "tubelet.run.training"),
        ("tubelet.checkpoints.x", "tubelet.recipe.schema"),
        ("tubelet.prepare.x", "tubelet.checkpoints.load"),
        ("tubelet.run.x", "tubelet.cli.main"),
    ):
        assert not may_import(module, wrong), f"{module} -> {wrong}"


def test_every_way_of_importing_is_seen(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "import tubelet.files\n"
        "from tubelet import masking\n"
        "from ..data import dataset\n"
        "from . import encoder\n"
        "def f():\n    from tubelet.train.optim import OptimConfig\n"
    )
    assert imported(path, "tubelet.models.x") == {
        "tubelet.files", "tubelet.masking", "tubelet.data.dataset",
        "tubelet.models.encoder", "tubelet.train.optim",
    }  # fmt: skip
