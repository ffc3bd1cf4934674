"""catdog/paths.py holds every path of dvc.yaml, and no other module spells one out."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from catdog import paths

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}


def entries(stage: dict[str, Any]) -> Iterator[str]:
    """The data paths that a stage of dvc.yaml names: code is a folder of the package."""
    for kind in ("deps", "outs", "metrics"):
        for entry in stage.get(kind, []):
            path = entry if isinstance(entry, str) else next(iter(entry))
            if not path.startswith("catdog/"):
                yield path


def test_paths_has_every_path_of_dvc_yaml() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {path for stage in stages.values() for path in entries(stage)}
    assert named <= KNOWN
    assert len(named) > 5


def test_no_other_module_of_the_package_hard_codes_a_path() -> None:
    spelled = {
        f"{file.relative_to(ROOT)}: {node.value}"
        for file in (ROOT / "catdog").rglob("*.py")
        if file.name != "paths.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in KNOWN - {"params.yaml", "models"}
    }
    assert spelled == set()
