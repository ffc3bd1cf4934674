"""The list of modules in docs/code.md, from the docstrings of the packages that name them.

Each package lists its modules and subpackages in the docstring of its __init__.py, one per line:
the name, two or more spaces, and what it contains. `python -m tools.code_map` updates docs/code.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("catdog", "flows", "tools")
PAGE = ROOT / "docs/code.md"
START, END = "<!-- modules: python -m tools.code_map -->\n```\n", "```\n<!-- end of modules -->\n"
ENTRY = re.compile(r"^(?P<name>\w+(?:\.py|/)) {2,}(?P<description>\S.*)$", re.MULTILINE)


def entries(package: Path) -> dict[str, str]:
    """Return name → description of the modules and subpackages that a package's docstring lists."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    return {found["name"]: found["description"] for found in ENTRY.finditer(docstring or "")}


def contents(package: Path) -> set[str]:
    """Return the names of the modules and subpackages that a package must list.

    These are all but __init__.py and __main__.py.
    """
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    return modules | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}


def packages(top: Path) -> Iterator[Path]:
    """Yield the folder of a package and of each package in it, at any depth, sorted by name."""
    yield top
    for init in sorted(top.glob("*/__init__.py")):
        yield from packages(init.parent)


def tree(package: Path, indent: str = "") -> str:
    """Return the modules of a package as an indented list, in the order of its docstring."""
    listed = entries(package)
    width = max(map(len, listed), default=0)
    lines = []
    for name, description in listed.items():
        lines.append(f"{indent}{name:{width}}  {description}\n")
        if name.endswith("/"):
            lines.append(tree(package / name, f"{indent}  "))
    return "".join(lines)


def updated(page: str) -> str:
    """Return the text of docs/code.md with the current list of modules."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    listing = "".join(f"{name}/\n{tree(ROOT / name, '  ')}" for name in PACKAGES)
    return f"{before}{START}{listing}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
