"""Refuse to run the code of one checkout of this repository in the folder of another one."""

from pathlib import Path

from catdog.errors import CatdogError
from catdog.paths import PIPELINE

PACKAGE = Path(__file__).parent


def check() -> None:
    """Raise CatdogError if the current folder is in a checkout, and this package is not part of it.

    In an editable install, the command `catdog` imports the package of the checkout that was
    installed, in whichever folder it runs. In another checkout, DVC would record its results as
    those of the code there. A folder with dvc.yaml and a package catdog/ counts as a checkout; a
    project that uses an installed catdog has no such package.
    """
    here = Path.cwd()
    project = next((top for top in (here, *here.parents) if (top / PIPELINE).is_file()), here)
    package = project / PACKAGE.name
    if (package / "__init__.py").is_file() and not package.samefile(PACKAGE):
        raise CatdogError(
            f"{project}: the installed command `catdog` has the code of {PACKAGE.parent}, not of "
            "this checkout; run `python -m catdog` in the top folder of this checkout instead, or "
            "install it with `pip install -e .`"
        )
