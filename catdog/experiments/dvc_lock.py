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


def has_other_outputs(stages: Stages, others: Stages) -> bool:
    """Return whether two results of the same params, code and photos have different outputs.

    This happens if they were computed on different kinds of processors.
    """
    if not stages or hashes(stages, "outs") == hashes(others, "outs"):
        return False
    return _inputs(stages) == _inputs(others)


def _inputs(stages: Stages) -> dict[str, Any]:
    """Return command, params and hashes of the dependencies that no stage writes, by stage."""
    outs = hashes(stages, "outs")
    return {
        name: (
            stage.get("cmd"),
            stage.get("params"),
            {path: md5 for path, md5 in hashes({name: stage}, "deps").items() if path not in outs},
        )
        for name, stage in stages.items()
    }
