"""Every theory check: python -m theory_checks [--out results/theory]

One table of claims, printed and written to OUT/claims.csv; figures in OUT/figures, their captions in OUT/figures.json.
Exit status 1 if a claim fails.
"""

import importlib
import inspect
import json
import tempfile
from pathlib import Path

import pandas as pd
import torch
import tyro
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from theory_checks.claims import table

CHECKS = [
    *("instances", "rates", "stein", "recovery", "axioms", "no_free_lunch", "identities", "design"),
    *("leaving_out", "parts", "evaluation"),
]


def main(out: Path = Path("results/theory"), processes: int = 2) -> None:
    """Run all checks, print one table and write OUT/claims.csv, OUT/figures.json and OUT/figures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as name:  # what is written appears whole or not at all
        part = Path(name)
        runs = Parallel(processes, return_as="generator")(delayed(run)(check, part) for check in CHECKS)
        found = list(tqdm(runs, "theory checks", total=len(CHECKS), unit="file", delay=2, leave=False))
        claims = pd.concat([frame for frame, _ in found], ignore_index=True)
        captions = {stem: text for _, captions in found for stem, text in captions.items()}
        claims.to_csv(part / "claims.csv", index=False)
        (part / "figures.json").write_text(json.dumps(captions, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (out / "figures").mkdir(exist_ok=True)
        for path in sorted(part.iterdir()):
            path.replace((out / "figures" if path.suffix in (".png", ".pdf") else out) / path.name)
    shown = claims.assign(claim=claims["claim"].str.ljust(claims["claim"].str.len().max()))
    print(shown.to_string(index=False, justify="left", float_format="{:.3g}".format))
    failed = int((claims["verdict"] != "holds").sum())
    print(f"{len(claims)} claims, {failed} failed")
    raise SystemExit(failed > 0)


def run(check: str, folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The claims of one file, and the caption (the docstring) of the figure it draws into `folder`, if any."""
    torch.set_num_threads(1)
    module = importlib.import_module(f"theory_checks.{check}")
    claims = table(module.claims())
    claims.insert(0, "file", check)
    if not hasattr(module, "figure"):
        return claims, {}
    stem = module.figure(folder).stem
    return claims, {stem: " ".join((inspect.getdoc(module.figure) or stem).split())}


if __name__ == "__main__":
    tyro.cli(main)
