"""Whether the results in the workspace are of the current params and photos.

The check reads dvc.lock, params.yaml and data/raw.dvc only; `dvc status` also compares code and
files, but takes seconds.
"""

from typing import Any

from flatten_dict import flatten

from catdog.experiments import dvc_lock
from catdog.paths import LOCK, PARAMS, RAW
from catdog.support.yaml_files import parse_mapping

POINTER = RAW.with_name(f"{RAW.name}.dvc")
MOST_NAMED = 3  # params in the description


def describe_outdated(stage: str) -> str:
    """Return why the outputs of a stage are not those of params.yaml and data/raw.dvc, or "".

    It is "" too if the stage has not run, or outside of a project. Raises CatdogError for a file
    that is not valid YAML.
    """
    if not (LOCK.is_file() and PARAMS.is_file()):
        return ""
    stages = parse_mapping(LOCK.read_text(encoding="utf-8"), str(LOCK)).get("stages", {})
    if stage not in stages:
        return ""
    reasons = []
    if changed := _changed_params(stages[stage]):
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        reasons.append(f"other params ({', '.join(changed[:MOST_NAMED])}{more})")
    if _photos_have_changed(stages):
        reasons.append(f"other photos than {RAW} has now")
    return " and ".join(reasons)


def _changed_params(stage: dict[str, Any]) -> list[str]:
    """Return the params of a stage that have other values in params.yaml, as `key: value`."""
    used = stage.get("params", {}).get(str(PARAMS), {})
    now = parse_mapping(PARAMS.read_text(encoding="utf-8"), str(PARAMS))
    old, new = flatten(used, "dot"), flatten({key: now.get(key) for key in used}, "dot")
    return [f"{key}: {value}" for key, value in old.items() if new.get(key) != value]


def _photos_have_changed(stages: dvc_lock.Stages) -> bool:
    if not POINTER.is_file():
        return False
    pointer = parse_mapping(POINTER.read_text(encoding="utf-8"), str(POINTER))
    known = {out.get("path"): out.get("md5") for out in pointer.get("outs", [])}
    used = dvc_lock.hashes(stages, "deps").get(str(RAW))
    return bool(used) and RAW.name in known and known[RAW.name] != used
