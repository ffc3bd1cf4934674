"""Refuse to run the code of one checkout of this repository in the folder of another one."""

from pathlib import Path

from catdog.errors import CatdogError
from catdog.paths import PIPELINE

PACKAGE = Path(__file__).parent


def check() -> None:
    """Raise CatdogError if the current folder is in a checkout, and this package is not from there.

    In an editable install, the command `catdog` imports the package of the checkout that was
    installed, in whichever folder it runs. In another checkout, its results would be taken for
    those of the code there. A folder with dvc.yaml and a package catdog/ counts as a checkout; a
    project that uses an installed catdog has no such package.
    """
    here = Path.cwd()
    project = next((top for top in (here, *here.parents) if (top / PIPELINE).is_file()), here)
    package = project / PACKAGE.name
    if (package / "__init__.py").is_file() and not package.samefile(PACKAGE):
        raise CatdogError(
            f"{PACKAGE}: not the code of {project}; run `python -m catdog` instead of `catdog` in "
            "that folder, or install it with `pip install -e .`"
        )
