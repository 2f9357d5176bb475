"""Which package may import which, read from the source, and how long a file may get."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("locapprox", "experiments", "paper_figures", "theory_checks")
LIBRARY = sorted((ROOT / "locapprox").rglob("*.py"))


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Dotted names that a file imports, also inside functions and as `from package import module`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


def test_the_reader_reads(tmp_path):
    """It sees every form of import."""
    text = "import a.b\nfrom c import d\ndef f():\n    from .e import g\n    import h as i\nif f:\n    from . import j"
    path = ROOT / "locapprox" / "solve.py"
    fake = type("P", (), {"read_text": lambda s, encoding: text, "name": path.name, "relative_to": path.relative_to})()
    found = set(imports(fake))
    assert {"a.b", "c", "c.d", "locapprox.e", "locapprox.e.g", "h", "locapprox.j"} <= found


def test_no_cycles_within_the_library():
    names = {module(p) for p in LIBRARY}
    graph = {module(p): {n for n in imports(p) if n in names and n != module(p)} for p in LIBRARY}
    graph.pop("locapprox", None)  # the front door imports all, and none may come in through it
    for name, wants in graph.items():
        assert "locapprox" not in wants, f"{name} imports the package itself"
    done: list[str] = []

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.append(name)

    for name in graph:
        visit(name, ())
    assert len(done) == len(graph) >= 10


def test_parts_do_not_know_methods():
    """methods → parts → solve, and explain → protocols."""
    for path in LIBRARY:
        if path.stem in ("methods", "__init__", "recommend"):
            continue
        bad = [n for n in imports(path) if within(n, "locapprox.methods")]
        assert not bad, f"{path.name} imports {bad}"
    for low in ("losses", "distributions", "models"):
        below = [n for n in imports(ROOT / "locapprox" / f"{low}.py") if within(n, "locapprox")]
        bad = [n for n in below if not within(n, "locapprox.notices")]
        assert not bad, f"{low} imports {bad}"


def test_explain_knows_no_method():
    own = {n for n in imports(ROOT / "locapprox" / "explain.py") if within(n, "locapprox")}
    for name in ("methods", "distributions", "neighbourhoods", "losses"):
        assert not any(within(n, f"locapprox.{name}") for n in own), name


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_the_library_stands_alone(path):
    forbidden = (
        "experiments",
        "paper_figures",
        "theory_checks",
        "tests",
        "captum",
        "shap",
        "lime",
        "shapiq",
        "quantus",
    )
    bad = [n for n in imports(path) for package in forbidden if within(n, package)]
    assert not bad


def test_figures_read_results_and_no_model():
    """`locapprox.pictures` draws arrays."""
    for path in sorted((ROOT / "paper_figures").rglob("*.py")):
        bad = [
            n
            for n in imports(path)
            for package in (
                "torch",
                "sklearn",
                "captum",
                "shap",
                "locapprox",
                "experiments.networks",
                "experiments.models",
            )
            if within(n, package) and not within(n, "locapprox.pictures")
        ]
        assert not bad, f"{path.name} imports {bad}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
