"""The structure of the code: packages list their modules, and imports go one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import code_map

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [package for name in code_map.PACKAGES for package in code_map.packages(ROOT / name)]

# What each part of a package may import from the same package, besides its own modules. A part is
# a subpackage or a module next to them; one that is not listed may import everything.
BASE = frozenset({"__init__", "errors", "paths"})
READERS = BASE | {"support", "params", "dataset"}
ALLOWED: dict[str, dict[str, frozenset[str]]] = {
    "catdog": {
        "errors": frozenset(),
        "paths": frozenset(),
        "support": BASE,
        "params": BASE | {"support"},
        "dataset": BASE | {"support"},
        "preparation": READERS,
        "ingest": READERS | {"preparation"},
        "model": READERS,
        "training": READERS | {"model"},
        "evaluation": READERS | {"model"},
        "experiments": BASE | {"support", "params"},
        "predict": READERS | {"model", "preparation"},
    },
    "flows": {
        "errors": frozenset(),
        "paths": frozenset({"errors"}),
        "log": BASE,
        "guards": BASE | {"log"},
        "runs": BASE | {"log", "guards"},
        "sweeps": BASE | {"log", "guards", "runs"},
    },
}
# The folders of the repository that each package must not import at all.
FORBIDDEN = {
    "catdog": {"flows", "benchmarks", "studies", "tests", "tools"},
    "flows": {"catdog", "benchmarks", "studies", "tests", "tools"},
}


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names that a module imports, inside functions and TYPE_CHECKING too.

    `from a import b` yields a.b, since b may be a module.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(top: str, dotted: str) -> str:
    """Return the part of the package `top` that a dotted name belongs to."""
    _, _, rest = dotted.partition(".")
    part = rest.split(".")[0]
    is_part = (ROOT / top / part).is_dir() or (ROOT / top / f"{part}.py").is_file()
    return part if part and is_part else "__init__"


def violations(top: str, part: str, source: str) -> list[str]:
    """Return the imports of a module in `part` of the package `top` that the rules forbid."""
    allowed = ALLOWED[top].get(part)

    def is_allowed(name: str) -> bool:
        package = name.split(".", maxsplit=1)[0]
        if package != top or allowed is None:
            return package not in FORBIDDEN[top]
        return part_of(top, name) in allowed | {part}

    return [name for name in imports(source) if not is_allowed(name)]


def modules() -> Iterator[tuple[str, str, Path]]:
    """Yield package, part and file of every module."""
    for top in ALLOWED:
        for path in sorted((ROOT / top).rglob("*.py")):
            yield top, path.relative_to(ROOT / top).parts[0].removesuffix(".py"), path


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_package_lists_its_modules_and_no_others(package: Path) -> None:
    assert set(code_map.entries(package)) - {"__main__.py"} == code_map.contents(package)


def test_docs_code_md_has_the_current_list_of_modules() -> None:
    page = code_map.PAGE.read_text(encoding="utf-8")
    assert page == code_map.updated(page), "docs/code.md is out of date: python -m tools.code_map"


@pytest.mark.parametrize("top", ALLOWED)
def test_imports_go_one_way(top: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): forbidden
        for package, part, path in modules()
        if package == top and (forbidden := violations(top, part, path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize("top", ALLOWED)
def test_the_rules_name_existing_parts_and_leave_no_subpackage_out(top: str) -> None:
    folders = {path.parent.name for path in (ROOT / top).glob("*/__init__.py")}
    modules_at_the_top = {path.stem for path in (ROOT / top).glob("*.py")}
    named = set(ALLOWED[top]).union(*ALLOWED[top].values())
    assert named - BASE <= folders | modules_at_the_top
    assert folders <= set(ALLOWED[top])


@pytest.mark.parametrize(
    ("top", "part", "source"),
    [
        ("catdog", "model", "from catdog.training.distributed import Group"),
        ("catdog", "model", "from catdog import training"),
        ("catdog", "support", "import catdog.params.schema"),
        ("catdog", "cli", "def run():\n    from flows import pipeline"),
        ("catdog", "training", "from catdog.preparation.photos import open_photo"),
        ("flows", "pipeline", "import catdog"),
        ("flows", "guards", "from flows.runs import request"),
    ],
)
def test_a_forbidden_import_is_found(top: str, part: str, source: str) -> None:
    assert len(violations(top, part, source)) == 1


@pytest.mark.parametrize(
    ("top", "part", "source"),
    [
        ("catdog", "model", "from catdog.model import networks"),
        ("catdog", "model", "from catdog import __version__"),
        ("catdog", "cli", "from catdog.training.train import train"),
        ("flows", "runs", "from flows.guards.outages import is_away"),
        ("flows", "runs", "import prefect"),
    ],
)
def test_other_imports_are_allowed(top: str, part: str, source: str) -> None:
    assert violations(top, part, source) == []
