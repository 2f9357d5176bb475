"""python -m experiments.paper: every experiment of Han et al. (2022) on WHO and HELOC, the theory, and the figures.

python -m experiments.paper --list                            the tasks, and what is done
python -m experiments.paper --only correspondence '*/who-*'   those whose name begins with, or matches, a pattern

Finished tasks are kept: after an interruption the same command goes on, and ends with the same results.
"""

import contextlib
import fnmatch
import importlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import joblib
import tyro
from tqdm.auto import tqdm

from experiments import (
    authors,
    authors_models,
    changes,
    correspondence,
    data,
    files,
    image_models,
    networks,
    no_free_lunch,
    originals,
    perturbations,
    recovery,
    runs,
    schedule,
)

NETWORKS = ("ffnnC", "ffnnB", "ffnnA")
MODELS = [
    (table, model) for table, simple in (("heloc", "logistic"), ("who", "linear")) for model in (*NETWORKS, simple)
]
SIMPLE = [(name, model) for name, model in MODELS if model not in NETWORKS]
CONFIGS = [
    *[correspondence.Config(name, model) for name, model in MODELS],
    *[recovery.Config(name, model) for name, model in SIMPLE],
    *[perturbations.Config(name, model) for name, model in MODELS],
    *[no_free_lunch.Config(name, model) for name, model in MODELS],
    *[
        changes.Config(name, model) for name, model in MODELS if model not in ("ffnnB", "ffnnC")
    ],  # the authors' checkpoints at hand,
    *[authors_models.Config(name, model) for name, model in MODELS],
]
# Measured, roughly, on one core: the longest start first.
SECONDS = {
    "theory": 21.0,
    "perturbations": 6.0,
    "no_free_lunch": 5.0,
    "changes": 3.0,
    "authors_models": 5.0,
    "correspondence": 10.0,
    "recovery": 5.0,
    "image_models": 600.0,
}
ORIGINALS = ("correspondence", "recovery")  # they need captum's explanations
TRAINING = {"ffnnA": 10.0, "ffnnB": 15.0, "ffnnC": 20.0, "lenet": 20.0, "resnet": 400.0}
CACHES = ("networks", "originals")
ALONE = {"theory": ("theory_checks --out", "theory"), "figures": ("paper_figures --results", ".")}


@dataclass(frozen=True)
class Options:
    out: Path = Path("results/paper")
    only: tuple[str, ...] = ()
    """Names of tasks, their beginnings, or patterns with *."""
    list: bool = False
    """Say what there is to do, and do nothing."""
    force: bool = False
    """Compute again what is there."""
    jobs: int = joblib.cpu_count()
    """Tasks at a time; each has one thread."""


def run_all(configs: Sequence[Any], options: Options, with_theory: bool = True) -> int:
    """Exit status: 0 if all is done, 1 if a task failed, 130 after Ctrl-C or SIGTERM."""
    out, steps = options.out, {name_of(config): partial(entry(config), config, options.out) for config in configs}
    steps |= ({"theory": partial(theory, out)} if with_theory else {}) | {"figures": partial(figures, out)}
    try:
        chosen = select(tuple(steps), options.only)
        if options.list:
            for name in chosen:
                print(f"{name:<38}{state(steps[name])}", flush=True)
            return 0
        with schedule.terminable(), alone(out, [out / name for name in (*steps, *CACHES)]):
            return _run({name: steps[name] for name in chosen}, configs, options)
    except KeyboardInterrupt:
        tqdm.write(f"Stopped. What is finished is kept in {out}; the same command goes on from there.")
        return 130
    except BrokenPipeError:  # whoever reads, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
        return 0 if options.list else 1
    except (ValueError, OSError) as error:
        tqdm.write(f"Error: {error}")
        return 1


def _run(steps: dict[str, Callable[..., Any]], configs: Sequence[Any], options: Options) -> int:
    failed, skipped, todo = dict[str, str](), dict[str, str](), dict[str, schedule.Task]()
    ours = {name_of(config): config for config in configs}
    for name, step in steps.items():
        if name == "figures":
            continue
        try:
            why = runs.reason(step)
        except authors.AbsentError as error:
            skipped[name] = str(error)
            continue
        except (ValueError, OSError) as error:
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        if why is None and not options.force:
            continue
        if why and not options.force:
            tqdm.write(f"{name}: {why}; computed again")
        first = preparations(ours[name], options.out) if name in ours else []
        todo |= {task.name: task for task in first}
        needs = tuple(task.name for task in first)
        todo[name] = schedule.Task(name, partial(step, options.force), seconds(name), needs)
    for why in dict.fromkeys(skipped.values()):
        tqdm.write(f"{', '.join(name for name, other in skipped.items() if other == why)}: skipped, since {why}")
    kept = len(steps.keys() - failed.keys() - skipped.keys() - todo.keys() - {"figures"})
    if kept:
        tqdm.write(f"{kept} of {len(steps.keys() - {'figures'})} tasks are done already (--force computes them again)")
    if todo:
        errors = schedule.run(list(todo.values()), options.jobs)
        failed |= {name: why for name, why in errors.items() if name in steps}
    if "figures" in steps:
        try:
            page = steps["figures"](options.force) / "index.html"
            tqdm.write(f"Figures: {page.parent} (open {page})")
        except Exception as error:  # what is computed stays, and other failures are still to be said
            failed["figures"] = f"{type(error).__name__}: {error}"
    for why in dict.fromkeys(failed.values()):
        names = [name for name, other in failed.items() if other == why]
        commands = [command(ours.get(name), name, options.out) for name in names]
        tqdm.write("\n".join([f"\nFAILED {', '.join(names)}: {why}", "again, alone:", *commands]))
    return 1 if failed else 0


def name_of(config: Any) -> str:
    return f"{type(config).__module__.rpartition('.')[2]}/{config.data}-{config.model}"


def entry(config: Any) -> Callable[..., Path]:
    main: Callable[..., Path] = importlib.import_module(type(config).__module__).main
    return main


def command(config: Any | None, name: str, out: Path) -> str:
    if config is not None:
        return str(config.command(out))
    words, folder = ALONE[name]
    return f"python -m {words} {shlex.quote(str(out / folder))}"


def seconds(name: str) -> float:
    return SECONDS.get(name.partition("/")[0], 5.0)


def select(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that one of the patterns means, in their order; all without patterns."""

    def means(pattern: str, name: str) -> bool:
        return name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern)

    for pattern in patterns:
        if not any(means(pattern, name) for name in names):
            raise ValueError(f"--only {pattern} is none of the tasks:\n  " + "\n  ".join(names))
    return [name for name in names if not patterns or any(means(pattern, name) for pattern in patterns)]


def state(step: Callable[..., Any]) -> str:
    try:
        with data.offline():
            why = runs.reason(step)
    except data.NotDownloadedError as error:
        return f"unknown: {error}"
    except (ValueError, OSError) as error:
        return f"cannot be done: {error}"
    return "done" if why is None else f"stale: {why}" if why else "missing"


def preparations(config: Any, out: Path) -> list[schedule.Task]:
    """What experiments share, each a task of its own, so that no two processes compute the same entry of a cache."""
    if isinstance(config, authors_models.Config):
        return []  # their networks are trained
    name = f"{config.data}-{config.model}"
    select_on: Literal["validation", "test"] = getattr(config, "select_on", "validation")
    cost = TRAINING.get(config.model, 2.0) * (3 if config.data == "heloc" else 1)
    if isinstance(config, image_models.Config):
        return [
            schedule.Task(f"networks/{name}-{select_on}", partial(image_models.trained, config, out / "networks"), cost)
        ]
    recipe = networks.recipe(config.data, config.model, select_on, config.seed)  # its seeds are trained together
    shared = [schedule.Task(f"networks/{name}-{select_on}", partial(trained, recipe, config, out), cost)]
    if name_of(config).startswith(ORIGINALS):
        first = (shared[0].name,)
        shared.append(
            schedule.Task(f"originals/{name}-{select_on}", partial(original, config, out), 0.2 * config.points, first)
        )
    return shared


def trained(recipe: networks.Training, config: Any, out: Path) -> list[networks.Trained]:
    return networks.several(data.load(recipe.data), recipe, getattr(config, "seeds", 1), out / "networks")


def original(config: Any, out: Path) -> None:
    """captum's explanations of the first network."""
    select_on: Literal["validation", "test"] = getattr(config, "select_on", "validation")
    net = trained(networks.recipe(config.data, config.model, select_on, config.seed), config, out)[0].network
    p = correspondence.problem(config, data.load(config.data), net)
    originals.computed(p, config.seed, out / "originals")


def theory(out: Path, force: bool = False) -> Path:
    """The table of the theory, made again when its code or the library's changes."""
    code = runs.version_of([*runs.ROOT.glob("theory_checks/**/*.py"), *runs.ROOT.glob("locapprox/**/*.py")])

    def fill(place: Path) -> dict[str, Any]:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                later("theory_checks")(place, processes=1)
        except SystemExit as exit_:
            if exit_.code:
                raise RuntimeError(f"a claim fails:\n{said.getvalue()}") from exit_
        return {"command": command(None, "theory", out)}

    return runs.make(out / "theory", {"config": {}, "code": code, "data": {}}, fill, force)


def figures(out: Path, force: bool = False) -> Path:
    """Figures and their page, drawn again when a result or the code that draws changes."""
    places = [out / "theory", *(place for name in SECONDS for place in out.glob(f"{name}/[!.]*"))]
    manifests = [place / runs.MANIFEST for place in places]
    found = {path.parent.relative_to(out).as_posix(): files.digest(path) for path in manifests if path.is_file()}
    code = runs.version_of(path for path in runs.ROOT.glob("paper_figures/**/*.*") if path.suffix in (".py", ".csv"))

    def fill(place: Path) -> dict[str, Any]:
        later("paper_figures")(results=out, out=place)
        return {"command": command(None, "figures", out)}

    return runs.make(out / "figures", {"config": {}, "code": code, "data": found}, fill, force)


def later(package: str) -> Callable[..., Any]:
    """Its main, imported when needed: workers start sooner."""
    main: Callable[..., Any] = importlib.import_module(f"{package}.__main__").main
    return main


@contextlib.contextmanager
def alone(out: Path, folders: Iterable[Path] = ()) -> Iterator[None]:
    """One run at a time in `out`; in the end nothing that killed workers left unfinished is in its folders."""
    with files.alone(out, patience=0):
        try:
            yield
        finally:
            for folder in folders:
                runs.tidy(folder)


if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, tyro.cli(Options)))
