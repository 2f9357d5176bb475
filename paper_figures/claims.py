"""Every published claim with its verdict, from the results at hand: claims.csv.

A claim is "equal" (the published numbers, to rounding), "agrees" (within the interval, or as the theory says), is
"refuted", or "undecidable here". Where its evidence was not run the row is that of the committed reference,
paper_figures/claims.csv, which `python -m paper_figures.claims` writes anew from a folder that has everything.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import tyro

from paper_figures.results import Runs, coincide, nearest, published, read
from paper_figures.style import FAMILIES, METHODS

REFERENCE = Path(__file__).with_name("claims.csv")
COLUMNS = ["id", "published", "statement", "status", "number", "interval", "seeds", "command", "evidence"]
PAPER = ("who", "heloc")
ROUNDING = 4e-6  # of float32 networks, as a share of the largest weight: the most that was seen is 3.1e-6
SAME_CURVE = 5e-7
COMMANDS = {"theory": "python -m theory_checks", "": "python -m pytest tests/test_published.py"}
CLOSE = 0.1  # share of the norm within which a fit by descent on 800 draws stands for the minimiser
TABLE_2 = {  # theory_checks.recovery.TABLE
    "continuous: w": "On a continuous domain C-LIME, SmoothGrad and Vanilla Gradients alone recover the weights w",
    "continuous": "On a continuous domain the five multiplicative methods do not recover a linear f",
    "binary, x₀ = 1": "On a binary domain LIME, KernelSHAP and Occlusion alone recover f (x₀ without zeros)",
    "binary, a 0 in x₀": "The same where x₀ has a zero, at the paper's baseline 0",
    "binary, b = 1 − x₀": "The same with the baseline 1 − x₀",
    "{0, 1, 2}ᵈ, no 0 in x₀": "On a discrete domain none of the eight recovers f (x₀ without zeros)",
    "{0, 1, 2}ᵈ, a 0 in x₀": "The same where x₀ has a zero",
}


@dataclass(frozen=True)
class Verdict:
    status: str
    number: float = float("nan")
    interval: str = ""
    seeds: str = ""


@dataclass(frozen=True)
class Claim:
    """`judge` takes the results of the experiment that it names, or the table of the theory."""

    id: str
    published: str  # where
    statement: str
    experiment: str
    judge: Callable[..., Verdict]


def claims(results: Path) -> pd.DataFrame:
    """One row per claim; `evidence` says whether it is "this run" or the "reference".

    Runs on other data than the paper's, as of the demo, say nothing of what it claims.
    """
    reference = pd.read_csv(REFERENCE, keep_default_na=False).set_index("id") if REFERENCE.is_file() else None
    found = {name: read(results, name) for name in EXPERIMENTS if any(results.glob(f"{name}/*/manifest.json"))}
    found = {name: runs for name, runs in found.items() if all(data in PAPER for data, *_ in runs.runs)}
    table = results / "theory" / "claims.csv"
    theory = pd.read_csv(table) if table.is_file() else None
    rows = []
    for claim in CLAIMS:
        evidence = theory if claim.experiment == "theory" else found.get(claim.experiment)
        if evidence is None and reference is not None and claim.experiment:
            rows.append({"id": claim.id, **reference.loc[claim.id].to_dict(), "evidence": "reference"})
            continue
        if evidence is None and claim.experiment:
            raise FileNotFoundError(f"{results} has no {claim.experiment}, which shows {claim.id}")
        v = claim.judge(evidence) if claim.experiment else claim.judge()
        rows.append(
            {
                "id": claim.id,
                "published": claim.published,
                "statement": claim.statement,
                "status": v.status,
                "number": f"{v.number:.3g}",
                "interval": v.interval,
                "seeds": v.seeds,
                "evidence": "this run",
                "command": COMMANDS.get(claim.experiment, f"python -m experiments.paper --only {claim.experiment}"),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def shown(file: str, *words: str, as_said: str = "agrees", theory: pd.DataFrame) -> Verdict:
    """All rows of a theory check that begin with one of the words hold; the number is the one nearest to its bound."""
    rows = theory[(theory["file"] == file) & theory["claim"].str.startswith(words)]
    if rows.empty or not (rows["verdict"] == "holds").all():
        return Verdict("undecidable here")
    if "(not as the paper says)" in rows["claim"].iloc[0]:
        as_said = "refuted"
    last = rows.iloc[-1]
    return Verdict(as_said, last["number"], f"{last['relation']} {last['bound']:.3g}", f"{len(rows)} checks")


def explained(runs: Runs, version: str, method: str, quantity: str, curved: bool = False) -> pd.Series:
    frame = runs.tables["explanations"].query("version == @version and method == @method and quantity == @quantity")
    return frame[frame["model"] != "linear"]["value"] if curved else frame["value"]


def spread(status: str, values: pd.Series, number: float | None = None, what: str = "models") -> Verdict:
    span = f"{values.min():.2g} to {values.max():.2g}"
    return Verdict(status, values.max() if number is None else number, span, f"{len(values)} {what}")


def same(method: str, runs: Runs) -> Verdict:
    values = explained(runs, "existing", method, "relative difference")
    return spread("equal" if (values <= ROUNDING).all() else "refuted", values)


def sampled(method: str, runs: Runs) -> Verdict:
    """The linear model has no sampling error, and is equal."""
    z, within = (explained(runs, "existing", method, q, curved=True) for q in ("rms z", "within 1.96"))
    return spread(
        "agrees" if z.between(0.9, 1.1).all() and within.between(0.92, 0.985).all() else "refuted", z, z.mean()
    )


def unweighted(method: str, runs: Runs) -> Verdict:
    values = explained(runs, "framework", method, "nearer to the unweighted fit", curved=True)
    return spread("refuted" if (values > 0.5).all() else "agrees", values, values.mean())


def close(method: str, runs: Runs) -> Verdict:
    values = explained(runs, "framework", method, "share of the norm")
    return spread("agrees" if (values <= CLOSE).all() else "refuted", values)


def curves(replace: str, runs: Runs) -> Verdict:
    frame = runs.tables["curves"].query("replace == @replace")
    gap = (frame["tested"] - frame["theirs"]).abs()
    if replace == "baseline":
        return spread("equal" if gap.max() <= SAME_CURVE else "refuted", gap, what="points of curves")
    z = gap / frame["sem"]
    return spread("agrees" if z.max() <= 3 else "refuted", z, what="points of curves")


def recovers(model: str, metric: str, bound: float, runs: Runs) -> Verdict:
    """The median distance of stored and our explanations to what their family recovers."""
    frame = runs.tables["explanations"].query("model == @model")
    of = {name: "w" if name in FAMILIES["local"] else "w*x" for name in METHODS}
    values = frame[frame["quantity"] == metric + " to " + frame["method"].map(of)]["value"]
    return spread("agrees" if (values <= bound).all() else "refuted", values, what="explanations, stored and ours")


def own_instance(metric: str, runs: Runs) -> Verdict:
    table = nearest(runs, metric)
    counts = table["networks"].str.split(" of ", expand=True).astype(int)
    share, n = float(counts[0].sum() / counts[1].sum()), int(counts[1].max())
    status = "agrees" if (table["verdict"] != "no").all() else "refuted"
    return Verdict(status, share, f"{counts[0].sum()} of {counts[1].sum()}", f"{n} networks × {len(runs.runs)} models")


def on_theirs(runs: Runs) -> Verdict:
    """Of what captum does not draw masks for, on the authors' networks: is its own instance the nearest?"""
    hits = []
    for data, model in runs.runs:
        means = (
            runs.of("distances", data, model).query("metric == 'L1'").groupby(["existing", "engine"])["value"].mean()
        )
        for name in ("Occlusion", "Integrated Gradients", "Gradient x Input", "Vanilla Gradients", "SmoothGrad"):
            others = (means[name, other] for other in METHODS if other != name and not coincide(model, name, other))
            hits.append(means[name, name] <= min(others) + 1e-6)
    share = sum(hits) / len(hits)
    return Verdict(
        "agrees" if all(hits) else "refuted", share, f"{sum(hits)} of {len(hits)}", f"{len(runs.runs)} models"
    )


def separated(by: str, runs: Runs) -> Verdict:
    """In how many tests (model × network × test) what a method reports, or its neighbourhood, separates all methods."""
    table = runs.tables["verdict"]
    table = table[table["features"] == "all"]  # as published
    hit = table["native_split"] if by == "layout" else table["neighbourhood"].notna()
    return Verdict(
        "agrees" if hit.mean() > 0.5 else "refuted",
        float(hit.mean()),
        f"{hit.sum()} of {len(hit)}",
        f"{table['training_seed'].nunique()} networks × {len(runs.runs)} models",
    )


def loses_somewhere(runs: Runs) -> Verdict:
    """Methods of the first networks, all but the linear one, that are shown worse than the optimum somewhere."""
    table = runs.tables["verdict"].query("training_seed == 0 and model != 'linear'")
    hit = table["worse"] > 0
    status = "agrees" if hit.all() else "undecidable here"  # not shown worse is not shown to be at the optimum
    return Verdict(status, float(hit.mean()), f"{hit.sum()} of {len(hit)}", "1 network each")


def logistic_paths() -> Verdict:
    frame = published("recovery", "heloc", "logistic", "L1 to w*x").query("other == 'framework, logistic'")
    value = float(frame.loc[frame["method"] == "Integrated Gradients", "value"].iloc[0])
    return Verdict("agrees" if value <= CLOSE else "refuted", value, f"≤ {CLOSE}", "1 model")


def of_theory(id_: str, where: str, statement: str, file: str, *words: str, as_said: str = "agrees") -> Claim:
    judge = partial(shown, file, *words, as_said=as_said)
    return Claim(id_, where, statement, "theory", lambda theory: judge(theory=theory))


def code(name: str) -> str:
    return name.lower().replace(" ", "-")


def every() -> Iterator[Claim]:
    for m in METHODS:
        text = f"{m} is the stated instance of the framework"
        yield of_theory(f"theorem-1-{code(m)}", "theorem 1", text, "instances", f"{m}: ", as_said="equal")
    yield of_theory("stein", "section 3", "SmoothGrad and C-LIME have one limit", "stein", "Gaussian, ")
    text = "SmoothGrad and C-LIME tend to Vanilla Gradients as σ → 0"
    yield of_theory("limit-sigma", "theorem 1", text, "rates", "C-LIME, antithetic", "SmoothGrad, antithetic")
    text = "Mean gradients on Uniform(a, 1) tend to Gradient × Input as a → 1"
    yield of_theory("limit-a", "theorem 1", text, "rates", "IG on [a, 1]")
    text = "For every fit there is a neighbourhood on which it errs at least d(f, G)"
    yield of_theory("no-free-lunch", "theorem 3", text, "no_free_lunch", "squared error: ", "gradient matching: ")
    text = "The same with the second neighbourhood kept multiplicative around x₀"
    yield of_theory("no-free-lunch-literal", "theorem 3", text, "no_free_lunch", "f = x₁ + x₂², x₀", as_said="refuted")
    for i, (setting, statement) in enumerate(TABLE_2.items()):
        yield of_theory(f"recovery-{i + 1}", "definition 2", statement, "recovery", f"{setting}: l")
    text = "f = Σ sin(w_i x_i): masks see nothing of it"
    yield of_theory("remark-sine", "remark 2", text, "recovery", "f = Σ sin")
    text = "A neighbourhood designed on a discrete domain recovers f there"
    yield of_theory("guiding-principle", "definition 2", text, "recovery", "… and a neighbourhood", "… its surrogate")
    for m in ("Occlusion", "Integrated Gradients", "Gradient x Input", "Vanilla Gradients"):
        text = f"captum's {m} of the authors' networks is the engine's, weight by weight"
        yield Claim(f"stored-{code(m)}", "section 5.1", text, "authors_models", partial(same, m))
    for m in ("LIME", "KernelSHAP", "SmoothGrad"):
        text = f"captum's {m} of the authors' networks is the engine's up to sampling error (root mean square z)"
        yield Claim(f"stored-{code(m)}", "section 5.1", text, "authors_models", partial(sampled, m))
    for m in ("LIME", "KernelSHAP"):
        text = f"The framework's {m} as published minimises the loss with its kernel"
        yield Claim(f"framework-{code(m)}", "figure 1", text, "authors_models", partial(unweighted, m))
    for m in ("Occlusion", "Integrated Gradients", "SmoothGrad", "C-LIME"):
        text = f"The framework's {m} as published is its minimiser within {CLOSE:.0%} of the norm"
        yield Claim(f"framework-{code(m)}", "figure 1", text, "authors_models", partial(close, m))
    for m, at in (("Vanilla Gradients", "σ = 0.01"), ("Gradient x Input", "a = 0.95")):
        text = f"{at} stands for the limit {m} within {CLOSE:.0%} of the norm"
        yield Claim(f"framework-{code(m)}", "section 5.1", text, "authors_models", partial(close, m))
    text = "Originals of the authors' networks are nearest to their own instance (masks apart)"
    yield Claim("nearest-theirs", "figure 1", text, "authors_models", on_theirs)
    for metric in ("L1", "cosine"):
        text = f"Every original is nearest to its own instance, up to sampling error ({metric}, retrained networks)"
        yield Claim(f"nearest-{metric}", "figure 1", text, "correspondence", partial(own_instance, metric))
    text = "A linear model: additive methods recover w, the others w ⊙ x"
    yield Claim("recovery-linear", "section 5.2", text, "authors_models", partial(recovers, "linear", "L1", 1e-4))
    text = "A logistic model: linear surrogates recover the direction of w, or of w ⊙ x (cosine distance ≤ .02)"
    yield Claim(
        "recovery-logistic", "section 5.2", text, "authors_models", partial(recovers, "logistic", "cosine", 0.02)
    )
    text = "A logistic model: Integrated Gradients with a logistic surrogate, as stored, recovers w ⊙ x"
    yield Claim("recovery-logistic-paths", "section 5.2", text, "", logistic_paths)
    text = "Perturbation curves of the stored explanations, features set to 0"
    yield Claim("curves-baseline", "section 5.3", text, "authors_models", partial(curves, "baseline"))
    text = "Perturbation curves of the stored explanations, noise: within 3 standard errors"
    yield Claim("curves-noise", "section 5.3", text, "authors_models", partial(curves, "noise"))
    text = "Methods that report w are parted from those that report w ⊙ x in most perturbation tests"
    yield Claim("perturbation-split", "section 5.3", text, "perturbations", partial(separated, "layout"))
    text = "It is the neighbourhood that parts them: it does so alone, whatever the layout, in most tests"
    yield Claim("perturbation-neighbourhood", "section 5.3", text, "perturbations", partial(separated, "neighbourhood"))
    text = "No method is at the optimum of every neighbourhood, on any model but the linear one"
    yield Claim("no-method-everywhere", "section 4", text, "no_free_lunch", loses_somewhere)
    unseeded = partial(Verdict, "undecidable here", interval="drawn without a seed; the draws are not public")
    yield Claim("noise-curves-exactly", "section 5.3", "The noise curves as printed, point by point", "", unseeded)
    yield Claim("descent-exactly", "section 5.1", "The framework's stored fits, weight by weight", "", unseeded)


CLAIMS = tuple(every())
EXPERIMENTS = {claim.experiment for claim in CLAIMS} - {"theory", ""}


def main(results: Path = Path("results/paper"), out: Path = REFERENCE) -> Path:
    """Write the claims that `results` shows to OUT, the committed reference by default."""
    claims(results).to_csv(out, index=False)
    return out


if __name__ == "__main__":
    print(tyro.cli(main))
