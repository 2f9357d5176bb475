"""python -m paper_figures [name …] [--results results/paper]: draw figures, and with no name all, and an index page."""

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import joblib
import pandas as pd
import tyro
from tqdm.auto import tqdm

from experiments import files
from paper_figures import (
    authors_models,
    claims,
    correspondence,
    image_models,
    no_free_lunch,
    page,
    perturbations,
    recovery,
)
from paper_figures.results import EXPERIMENTS, Runs, read
from paper_figures.style import Picture, style

MODULES = {
    "correspondence": correspondence,
    "recovery": recovery,
    "perturbations": perturbations,
    "no_free_lunch": no_free_lunch,
    "authors_models": authors_models,
    "image_models": image_models,
}


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (), results: Path = Path("results/paper"), out: Path | None = None
) -> Path:
    """Draw OUT/NAME.pdf and .png, and OUT/index.html if all are drawn.

    Args:
        names: figures to draw: names, their beginnings, or patterns with *; default: all.
        results: the folder with the results of the experiments.
        out: where to draw; default: RESULTS/figures.
    """
    found = finished(results)
    if not found:
        raise FileNotFoundError(f"{results} has no finished results; python -m experiments.paper makes them")
    folder, wanted = out or results / "figures", chosen(list(figures(found)), names)
    workers = min(joblib.cpu_count(), len(wanted))
    slices = [wanted[i :: 2 * workers] for i in range(2 * workers)]
    parts = joblib.Parallel(workers, return_as="generator")(joblib.delayed(draw)(results, s, folder) for s in slices)
    bar = tqdm(parts, "figures", total=len(slices), delay=2, leave=False)
    pictures = {name: picture for part in bar for name, picture in part.items()}
    drawn = {name: pictures[name] for name in wanted}
    if names:
        return folder
    index = folder / "index.html"
    judged = claims.claims(results)
    files.write(folder / "claims.csv", lambda part: judged.to_csv(part, index=False))
    text = page.index(found, drawn, theory(results), judged)
    files.write(index, lambda part: part.write_text(text, encoding="utf-8"))
    return index


def finished(results: Path) -> dict[str, Runs]:
    """By experiment: those of which something is finished."""
    return {name: read(results, name) for name in EXPERIMENTS if any(results.glob(f"{name}/*/manifest.json"))}


def figures(found: Mapping[str, Runs]) -> dict[str, Callable[[Path], Picture]]:
    """What draws each figure, by its name."""
    return {name: f for e, module in MODULES.items() if e in found for name, f in module.figures(found[e]).items()}


def draw(results: Path, names: Sequence[str], folder: Path) -> dict[str, Picture]:
    """Some of the figures, in a process that reads the results itself: quicker than sending them."""
    every = figures(finished(results)) if names else {}
    with style():
        return {name: every[name](folder / name) for name in names}


def chosen(every: Sequence[str], names: Sequence[str]) -> list[str]:
    """The figures that one of the names means, in their order; all without names."""
    meant: set[str] = set()
    for name in names:
        matches = {f for f in every if f.startswith(name) or fnmatch.fnmatchcase(f, name)}
        if not matches:
            raise ValueError(f"{name!r} is none of the figures:\n  " + "\n  ".join(every))
        meant |= matches
    return [figure for figure in every if not names or figure in meant]


def theory(results: Path) -> tuple[pd.DataFrame, list[tuple[Path, str]]] | None:
    """The table of claims, and figures with their captions; None if they are not there."""
    folder = results / "theory"
    if not (folder / "claims.csv").is_file():
        return None
    captions = folder / "figures.json"
    texts = json.loads(captions.read_text(encoding="utf-8")) if captions.is_file() else {}
    images = [(folder / "figures" / f"{stem}.png", text) for stem, text in texts.items()]
    return pd.read_csv(folder / "claims.csv"), [(image, text) for image, text in images if image.is_file()]


if __name__ == "__main__":
    try:
        print(tyro.cli(main))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from error
