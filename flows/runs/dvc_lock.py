"""Compare the dvc.lock of two results: do they have the same outputs, or only the same inputs?

dvc.lock has the params, the hashes of code and photos, and the hashes of all outputs of a result.
"""

from typing import Any

import yaml


def same_result(one: str, other: str) -> bool:
    """Return whether two texts of dvc.lock are of the same params, code, photos and outputs.

    The order of the stages does not matter: DVC appends those that it runs for the first time.
    """
    # Parsing takes 100 times longer than sorting, and a commit may have many experiments.
    return sorted(one.splitlines()) == sorted(other.splitlines()) and _stages(one) == _stages(other)


def same_inputs(one: str, other: str) -> bool:
    """Return whether two texts of dvc.lock have the same stages, params, code and photos."""
    return _inputs(_stages(one)) == _inputs(_stages(other))


def _stages(text: str) -> dict[str, Any]:
    content = yaml.safe_load(text) if text else None
    return dict((content or {}).get("stages") or {})


def _inputs(stages: dict[str, Any]) -> dict[str, Any]:
    """Return command, params and dependencies by stage, without outputs of other stages."""
    outs = {out["path"] for stage in stages.values() for out in stage.get("outs", [])}

    def code_and_photos(stage: dict[str, Any]) -> dict[str, str]:
        deps = stage.get("deps", [])
        return {dep["path"]: dep.get("md5") for dep in deps if dep["path"] not in outs}

    return {
        name: (stage.get("cmd"), stage.get("params"), code_and_photos(stage))
        for name, stage in stages.items()
    }
