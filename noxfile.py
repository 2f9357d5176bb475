"""Every supported Python, and the lowest stated versions of the dependencies: `nox`, or `nox -s lowest`."""

import configparser
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
DATA = Path("../shared/data")
LIBRARY = ("solve", "logistic", "distributions", "neighbourhoods", "explanation", "concat", "models", "methods")
EVALUATION = ("faithfulness", "recommend", "perturbation")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The whole suite on the pinned versions."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    run(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """The library's own tests, on the lowest versions that setup.cfg states for it (on Linux torch brings CUDA)."""
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    stated = config["options"]["install_requires"].split()
    tools = ("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "beartype>=0.18")
    session.install(*[line.replace(">=", "==") for line in stated], *tools)
    session.install("--no-deps", "--editable", ".", "captum")
    files = [f"tests/test_{name}.py" for name in (*LIBRARY, *EVALUATION)]
    # shape checks need a newer jaxtyping; two tests compare with shap and lime
    markers = "addopts=-q --strict-markers -m 'not slow and not network'"
    run(session, "-o", markers, "-k", "not agrees_with_shap and not limes_constant", *files)


@nox.session(python=["3.12"])
def oddshap(session: nox.Session) -> None:
    """shapiq's OddSHAP on the games of `make bench`, whose page shows it afterwards: shapiq needs Python 3.12."""
    import sklearn  # of the environment that wrote the games

    session.install("shapiq==1.8.*", f"scikit-learn=={sklearn.__version__}", "joblib")
    session.run("python", "-m", "experiments.bench.oddshap", *session.posargs)


def run(session: nox.Session, *arguments: str) -> None:
    env = {"LOCAPPROX_DATA": str(DATA.resolve())} if DATA.is_dir() else {}
    session.run("python", "-m", "pytest", "-n", "auto", *arguments, env=env)
