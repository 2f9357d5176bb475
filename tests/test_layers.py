"""Which part may import which, read from the source, how long a file may get, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "locapprox").rglob("*.py"))
NAMES = {p: p.relative_to(ROOT / "locapprox").as_posix() for p in LIBRARY}
every_file = pytest.mark.parametrize("path", LIBRARY, ids=NAMES.values())

LAYERS = {  # each with what it may import of the library, besides itself; later ones stand on earlier ones
    "_names": (),
    "_notices": (),
    "_parts": (),
    "_memory": (),
    "plotting": (),
    "models": ("_names", "_notices", "_parts"),
    "neighbourhoods": ("_names", "_parts", "_memory", "models.inputs"),
    "_problem": ("_names", "_notices", "_parts", "models", "neighbourhoods"),
    "fit": ("_notices", "_parts", "_memory", "models", "neighbourhoods", "_problem"),
    "_method": ("_parts", "neighbourhoods", "fit"),
    "_methods": ("neighbourhoods", "fit.losses", "fit.surrogates", "_method"),
    "_files": ("_parts", "neighbourhoods.base", "fit", "_method"),
    "_explanation": (
        *("_names", "_parts", "plotting", "models", "neighbourhoods.base", "neighbourhoods.draws"),
        *("_problem", "fit", "_method", "_files"),
    ),
    "_load": ("fit.links", "_files", "_explanation"),
    "_concat": ("_parts", "neighbourhoods.base", "_files", "_explanation"),
    "_explain": ("_notices", "_parts", "models", "neighbourhoods.base", "_problem", "fit", "_method", "_explanation"),
    "_explainer": (
        *("_names", "_notices", "_parts", "models", "neighbourhoods.base", "_problem", "fit.surrogates", "_method"),
        *("_explanation", "_explain"),
    ),
    "images": ("_parts", "plotting", "models", "_problem", "_explanation", "_explain", "_explainer"),
    "evaluation": (
        *("_names", "_notices", "_parts", "plotting", "models", "neighbourhoods", "_problem", "fit", "_method"),
        *("_explanation", "_explain", "_explainer"),
    ),
}
NARROWER = {  # files that may import less than their layer, or one thing more
    "models/inputs.py": ("_names",),
    "neighbourhoods/draws.py": ("_parts", "models.inputs"),
    "neighbourhoods/base.py": ("_parts", "neighbourhoods.draws"),
    "neighbourhoods/named.py": ("_names", "models.inputs"),
    "neighbourhoods/baselines.py": ("_parts", "models.inputs", "neighbourhoods.named"),
    "neighbourhoods/labels.py": ("_parts", "models.inputs", "neighbourhoods.named"),
    "neighbourhoods/kernels.py": ("_parts", "neighbourhoods.draws"),
    "neighbourhoods/distributions.py": (
        *("_names", "_parts", "models.inputs", "neighbourhoods.draws", "neighbourhoods.named", "neighbourhoods.sobol"),
    ),
    "neighbourhoods/sobol.py": (),
    "neighbourhoods/masks.py": ("_parts", "_memory", "neighbourhoods.draws", "neighbourhoods.distributions"),
    "neighbourhoods/quadratures.py": ("_parts", "neighbourhoods.draws", "neighbourhoods.distributions"),
    "fit/losses.py": ("_parts", "fit.links"),
    "fit/links.py": (),
    "fit/result.py": (),
    "fit/solve.py": ("fit.kept",),
    "fit/ranks.py": (),
    "fit/stopping.py": ("_parts", "fit.evidence", "fit.ranks"),
    "fit/ridge.py": ("fit.solve",),
    "fit/blocks.py": (),
    "fit/sampling.py": (
        *("_memory", "_problem", "models.scores", "neighbourhoods.base", "fit.solve", "fit.seeds", "fit.blocks"),
        *("fit.kept", "fit.plan"),
    ),
    "fit/kept.py": (),
    "fit/plan.py": ("_memory", "neighbourhoods.base", "fit.quadrature"),
    "fit/seeds.py": ("neighbourhoods.base",),
    "images/regions.py": ("_parts", "models.inputs"),
    "evaluation/intervals.py": (),
    "evaluation/ranking.py": ("evaluation.intervals",),
    "evaluation/inherited.py": (*LAYERS["evaluation"], "_methods"),
}
INSIDE_A_FUNCTION = {("_method.py", "_explain"), ("_method.py", "_explainer")}  # the one cycle: Method.explainer
HEAVY = ("matplotlib", "scipy", "cvxpy", "sklearn", "seaborn", "skimage", "transformers")

GETATTR = {  # what is asked of models, which come from elsewhere, and of the system
    ("_memory.py", "hasattr(os, 'sysconf')"),
    ("models/scores.py", "getattr(part, 'training', False)"),
    ("models/scores.py", "getattr(model, '__self__', None)"),
    ("models/scores.py", "hasattr(model, 'predict')"),
    ("models/calls.py", "getattr(model, 'predict_proba', None)"),
    ("models/calls.py", "getattr(model, 'predict', None)"),
    ("models/calls.py", "getattr(model, '__self__', model)"),
    ("models/calls.py", "getattr(owner, 'feature_names_in_', None)"),
    ("models/calls.py", "getattr(owner, 'feature_name_', None)"),
    ("models/hugging_face.py", "getattr(processor, 'do_normalize', True)"),
    ("models/hugging_face.py", "getattr(processor, 'do_rescale', True)"),
}
CALLABLE = {  # callable(…): whether a user's part is one
    ("neighbourhoods/base.py", "getattr(neighbourhood, part, None)"),
    ("neighbourhoods/contract.py", "getattr(neighbourhood, part, None)"),
    ("neighbourhoods/contract.py", "getattr(distribution, 'draw', None)"),
    ("neighbourhoods/distributions.py", "getattr(distribution, 'draw', None)"),
    ("fit/surrogates.py", "getattr(surrogate, 'fit', None)"),
    ("fit/contract.py", "getattr(surrogate, 'fit', None)"),
}


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, functions=True):
    """Dotted names that a file imports, also as `from package import module`; by default inside functions, too."""
    package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def nodes(tree, functions):
    """All of a tree's; without functions, those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if not functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not functions and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from (inner for part in node.orelse for inner in (part, *nodes(part, functions)))
            continue
        yield node
        yield from nodes(node, functions)


def within(name, package):
    return name == package or name.startswith(package + ".")


def modules_of(path, functions=True):
    """The library's files that a file imports, without the library's own name in front."""
    names = {module(p) for p in LIBRARY} - {"locapprox"}
    return {n.removeprefix("locapprox.") for n in imports(path, functions) if n in names and n != module(path)}


def layer_of(name):
    return name.replace("/", ".").removesuffix(".py").split(".")[0]


def fake(text, name="locapprox/solve.py"):
    path = ROOT / name
    parts = {"read_text": lambda s, encoding: text, "name": path.name, "relative_to": path.relative_to}
    return type("P", (), parts)()


def test_the_reader_reads():
    """It sees every form of import, and knows which run with the module."""
    text = """
import a.b
from c import d
def f():
    from .e import g
    import h as i
if f:
    from . import j
class K:
    import k
    def method(self):
        import m
if TYPE_CHECKING:
    import n
else:
    import o
"""
    assert {"a.b", "c", "c.d", "locapprox.e", "locapprox.e.g", "h", "locapprox.j", "k", "m", "n"} <= set(
        imports(fake(text))
    )
    assert set(imports(fake(text), functions=False)) == {"a.b", "c", "c.d", "locapprox", "locapprox.j", "k", "o"}
    assert set(imports(fake("from ..e import f", "locapprox/fit/solve.py"))) == {"locapprox.e", "locapprox.e.f"}


# ---- directions


def test_layers_stand_on_earlier_ones():
    names = list(LAYERS)
    for i, (name, below) in enumerate(LAYERS.items()):
        assert {layer_of(part) for part in below} <= set(names[:i]), name
    assert {layer_of(name) for name in NAMES.values()} - {"__init__"} == set(names)
    assert set(NARROWER) <= set(NAMES.values())


@every_file
def test_a_file_imports_what_its_layer_may(path):
    name = NAMES[path]
    if name == "__init__.py":
        return
    layer = layer_of(name)
    allowed = NARROWER.get(name, (*LAYERS[layer], layer))
    wrong = {n for n in modules_of(path) if not any(within(n, part) for part in allowed)}
    assert {(name, n) for n in wrong} <= INSIDE_A_FUNCTION
    assert not wrong & modules_of(path, functions=False)


@every_file
def test_nothing_comes_in_through_the_front_door(path):
    """`import locapprox` and `from locapprox import explain`: the parts know files, the front door knows the parts."""
    bare = {n for n in imports(path) if n == "locapprox"}
    assert NAMES[path] == "__init__.py" or not bare


def test_who_knows_table_1():
    knows = {name for path, name in NAMES.items() if "_methods" in modules_of(path)}
    assert knows == {"__init__.py", "evaluation/inherited.py"}


def test_no_cycles_within_the_library():
    """But for `Method.explainer`, which asks for `explain` when it is called."""
    graph = {NAMES[p].removesuffix(".py").replace("/", ".").removesuffix(".__init__"): modules_of(p) for p in LIBRARY}
    graph.pop("__init__")
    for name, other in INSIDE_A_FUNCTION:
        graph[name.removesuffix(".py")].remove(other)
    done: list[str] = []

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.append(name)

    for name in graph:
        visit(name, ())
    assert len(done) == len(graph) >= 40


@every_file
def test_the_library_stands_alone(path):
    others = ("experiments", "paper_figures", "theory_checks", "tests", "captum", "shap", "lime", "shapiq", "quantus")
    assert not [n for n in imports(path) for package in others if within(n, package)]


def test_figures_read_results_and_no_model():
    """`locapprox.images.pictures` draws arrays."""
    models = ("torch", "sklearn", "captum", "shap", "locapprox", "experiments.networks", "experiments.image_networks")
    for path in sorted((ROOT / "paper_figures").rglob("*.py")):
        bad = [n for n in imports(path) for package in models if within(n, package)]
        assert all(within(n, "locapprox.images.pictures") for n in bad), f"{path.name} imports {bad}"


@pytest.mark.parametrize("package", ["experiments", "theory_checks"])
def test_others_come_in_through_the_front_door(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        names = {n.split(".")[1] for n in imports(path) if within(n, "locapprox") and "." in n}
        assert names <= public(), f"{path.name} imports {names - public()}"


def public():
    tree = ast.parse((ROOT / "locapprox" / "__init__.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return set(next(ast.literal_eval(n.value) for n in assigned if ast.unparse(n.targets[0]) == "__all__"))


def test_all_is_what_the_front_door_imports():
    tree = ast.parse((ROOT / "locapprox" / "__init__.py").read_text(encoding="utf-8"))
    imported = [a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert sorted(imported) == sorted(public())


# ---- what an import costs


@every_file
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert not [n for n in imports(path, functions=False) for package in HEAVY if within(n, package)]


def test_an_import_of_the_library_imports_none_of_them():
    code = f"import sys, locapprox; print([n for n in sys.modules if n.split('.')[0] in {HEAVY}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- files


@every_file
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@every_file
def test_packages_are_found_and_files_say_what_they_are(path):
    """`packages = find:` wants an `__init__` in every folder."""
    assert (path.parent / "__init__.py").is_file()
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_attributes_are_declared_and_not_guessed():
    """No `hasattr`, `getattr` with a default or `except AttributeError` on a part: bases declare what is optional."""
    found, asked = set(), set()
    for path, name in NAMES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                assert "AttributeError" not in ast.unparse(node.type), name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "callable":
                    asked |= {(name, ast.unparse(one)) for one in node.args if isinstance(one, ast.Call)}
                if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3):
                    found.add((name, ast.unparse(node)))
    assert found == GETATTR | CALLABLE
    assert not CALLABLE - asked
