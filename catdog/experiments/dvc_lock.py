"""Read dvc.lock: the params that a run used, and the hashes of its dependencies and outputs."""

from typing import Any

from flatten_dict import flatten

from catdog import paths

RAW = str(paths.RAW)
Stages = dict[str, Any]  # the content of dvc.lock under `stages`


def params_used(stages: Stages) -> dict[str, Any]:
    """Return the params that the stages used, by dotted key."""
    values: dict[str, Any] = {}
    for stage in stages.values():
        values |= stage.get("params", {}).get("params.yaml", {})
    return dict(flatten(values, reducer="dot"))


def hashes(stages: Stages, kind: str) -> dict[str, str]:
    """Return the hashes of all `deps` or `outs`, by path."""
    return {
        entry["path"]: entry.get("md5", "")
        for stage in stages.values()
        for entry in stage.get(kind, [])
    }


def code_hashes(stages: Stages) -> dict[str, str]:
    """Return the hashes of the folders and files of code, by path.

    These are the dependencies that are neither the photos nor the output of a stage.
    """
    data = {RAW, *hashes(stages, "outs")}
    return {path: md5 for path, md5 in hashes(stages, "deps").items() if path not in data}
