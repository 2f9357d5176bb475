"""Every supported Python, and the lowest stated versions of the dependencies: `nox`, or `nox -s lowest`."""

import configparser
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
DATA = Path("../shared/data")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The whole suite on the pinned versions."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    run(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The suite of the library, on the lowest versions that setup.cfg states for it."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    stated = config["options"]["install_requires"].split()
    session.install(*[line.replace(">=", "==") for line in stated])
    session.install("--editable", ".", "pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "beartype>=0.18")
    run(session, *LIBRARY)


LIBRARY = [f"tests/test_{name}.py" for name in ("solve", "distributions", "neighbourhoods", "explanation", "explainer")]


def run(session: nox.Session, *arguments: str) -> None:
    env = {"LOCAPPROX_DATA": str(DATA.resolve())} if DATA.is_dir() else {}
    session.run("python", "-m", "pytest", "-n", "auto", *arguments, env=env)
