"""Nothing that is read from a file is unpickled, which would run code of the file.

Processes of one program do exchange pickled objects: process pools, and distributed training.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    file
    for name in ("catdog", "flows", "benchmarks", "studies", "tools")
    for file in sorted((ROOT / name).rglob("*.py"))
]
UNPICKLERS = {"pickle", "cPickle", "joblib", "shelve", "dill", "cloudpickle", "marshal"}
# With weights_only=True torch has a reader of its own, which creates only tensors and containers.
RESTRICTED = {"torch.load", "torch.hub.load_state_dict_from_url"}
FORBIDDEN = {"pd.read_pickle", "pandas.read_pickle", "torch.jit.load", "torch.package"}


def problems(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNPICKLERS:
                yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in RESTRICTED and options.get("weights_only") != "True":
                yield f"{name} without weights_only=True"
            if options.get("allow_pickle", "False") != "False" or name in FORBIDDEN:
                yield name


def test_no_module_unpickles_a_file() -> None:
    found = {str(f.relative_to(ROOT)): list(problems(f.read_text("utf-8"))) for f in FILES}
    assert {name: list_ for name, list_ in found.items() if list_} == {}
    assert len(FILES) > 100


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
    ],
)
def test_the_check_finds_what_unpickles(code: str) -> None:
    assert list(problems(code))


def test_other_calls_are_allowed() -> None:
    assert not list(problems("np.load(file)\ntorch.load(file, weights_only=True)"))
