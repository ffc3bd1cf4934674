"""Paths in a catdog repository. They are duplicated because flows do not import catdog."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]  # the repository that this file belongs to

DVC_FOLDER = ".dvc"
PARAMS = "params.yaml"
LOCK = "dvc.lock"
RAW = "data/raw"
RAW_POINTER = f"{RAW}.dvc"
METRICS = "metrics.json"
PLOTS = ("reports/evaluate/confusion.png", "reports/evaluate/curves.png")
STATE = Path(".catdog")  # the data of runs in a checkout, ignored by git
CHECKPOINTS = STATE / "checkpoints"


def recipe_file(name: str) -> str:
    """Return the path of a recipe."""
    return f"recipes/{name}.yaml"
