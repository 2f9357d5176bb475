"""One static page that holds every figure, the numbers behind it, the published ones, and the commands."""

import base64
import html
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from paper_figures import authors_models
from paper_figures.correspondence import METRICS
from paper_figures.image_models import summary
from paper_figures.results import Runs, nearest, published
from paper_figures.style import Picture, title

PAGE_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { border-top: 1px solid #ccc; padding-top: 1rem; margin-top: 3rem }
img { max-width: 100%; height: auto } figure { margin: 2rem 0 } figcaption { color: #444; overflow-wrap: anywhere }
.table, pre { overflow-x: auto } table { border-collapse: collapse; font-size: .8rem; margin: .5rem 0 }
td, th { padding: .15rem .6rem; text-align: right } tr:nth-child(even) { background: #f3f3f3 }
details { margin: .3rem 0 } summary { cursor: pointer; color: #0b5394 } code { font-size: .8rem }
nav ul { columns: 2; padding-left: 1.2rem } @media (max-width: 40rem) { nav ul { columns: 1 } }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Which explanation should I choose? Regenerated</title><link rel="icon" href="data:,">
<style>{style}</style></head><body>
<h1>“Which Explanation Should I Choose?”, regenerated</h1>
<p>Every empirical figure of Han, Srinivas and Lakkaraju (NeurIPS 2022) from public data by one engine, beside what the
authors' eight public checkpoints and their stored explanations give, and what does not hold.</p>
<nav><ul>{contents}</ul></nav>
{body}
</body></html>
"""
SECTIONS = {
    "correspondence": (
        "Experiment 1: existing methods and their framework instances",
        "Every method by its original library (rows) and as an instance of the framework (columns), and two limits.",
    ),
    "recovery": (
        "Experiment 2: recovery of the model's weights",
        "A linear and a logistic model: which explanations recover w, and which w ⊙ x? Of the logistic model, w are "
        "the coefficients of the logit: a linear surrogate of the probability recovers its direction at best.",
    ),
    "perturbations": (
        "Experiment 3: perturbation tests, and what they test",
        "As published, each method is ranked by what it reports. So methods differ in two things: their neighbourhood, "
        "and whether their weights are multiplied by the input. The cross ranks each method both ways.",
    ),
    "no_free_lunch": (
        "No free lunch",
        "What every method loses on every neighbourhood, beyond the least possible error, and why: because f is not "
        "linear, at features that are at the baseline, or by dividing sampling errors. Intervals hold for other inputs "
        "and draws at 95 %; networks after the first are explained at few inputs, so more is undecided there.",
    ),
    "authors_models": (
        "The authors' own networks",
        "Their eight checkpoints, at their 100 points, through the engine: is what they stored the same, cell by cell?",
    ),
    "image_models": (
        "Experiment 4: images",
        "The same on image models: LIME, KernelSHAP and Occlusion explain patches, the others pixels.",
    ),
}
CHANGES = {
    "kernels": "The authors' framework never used the LIME and Shapley kernels: a (B,) weight times a (B, 1) residual "
    "is (B, B), and its sum is the unweighted one. Their figure 1 compares unweighted fits on fair masks.",
    "descent": "The authors fit by stochastic gradient descent on four fifths of the samples; the least-squares "
    "solution has a closed form, which the engine uses.",
    "limits": "Vanilla Gradients and Gradient × Input are limits; the authors stop at σ = 0.01 and a = 0.95, which "
    "leaves a bias on networks with kinks. Here they are point masses.",
    "k": "The published perturbation tests stop at k = 11 features, whatever the table has.",
    "scaling": "The published perturbation tests compare weights that are multiplied by the input with weights that "
    "are not. The right column counts the tests in which that layout alone separates all methods.",
    "checkpoint": "The authors keep the checkpoint with the best loss on the test set; here a tenth of the training "
    "rows chooses it.",
}


def index(
    found: Mapping[str, Runs],
    drawn: Mapping[str, Picture],
    theory: tuple[pd.DataFrame, list[tuple[Path, str]]] | None,
    claims: pd.DataFrame,
) -> str:
    """The page as text; images are part of it."""
    sections: dict[str, tuple[str, list[str]]] = {"claims": ("Every claim, and its verdict", list(_claims(claims)))}
    for name, (heading, words) in SECTIONS.items():
        if name not in found:
            continue
        body = [f"<p>{html.escape(words)}</p>"]
        if name in ("correspondence", "image_models"):
            body += _models(found[name])
        body += _nearest(found[name]) if name == "correspondence" else []
        body += _equality(found[name]) if name == "authors_models" else []
        body += _images(found[name]) if name == "image_models" else []
        prefix = name.replace("_", "-")
        body += [_figure(key, picture) for key, picture in drawn.items() if key.startswith(prefix)]
        sections[name] = heading, [*body, _commands(found[name].commands)]
    if "changes" in found:
        sections["changes"] = (
            "What changed, and why",
            [*_changes(found["changes"]), _commands(found["changes"].commands)],
        )
    if theory is not None:
        claims, images = theory
        body = [
            "<p>Every statement the framework rests on, as a computed number held against a bound.</p>",
            table(claims),
        ]
        body += [image(path, text) + "</figure>" for path, text in images]
        sections["theory"] = "Theory checks", [*body, _commands(["python -m theory_checks"])]
    contents = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in sections.items())
    text = "\n".join(f'<h2 id="{n}">{h}</h2>\n' + "\n".join(b) for n, (h, b) in sections.items())
    return PAGE.format(style=PAGE_STYLE, contents=contents, body=text)


def _claims(claims: pd.DataFrame) -> Iterable[str]:
    counts = claims["status"].value_counts()
    old = int((claims["evidence"] == "reference").sum())
    yield "<p>" + ", ".join(f"{count} {status}" for status, count in counts.items()) + "."
    if old:
        yield f" {old} of them were not run here and are taken from the committed reference."
    yield ' The same as a file: <a href="claims.csv">claims.csv</a>.</p>'
    yield table(claims.drop(columns="command"))


def _models(runs: Runs) -> Iterable[str]:
    rows = []
    for (data, model), manifest in zip(runs.runs, runs.manifests, strict=True):
        every = manifest["metrics"] if isinstance(manifest["metrics"], list) else [manifest["metrics"]]
        theirs = published("models", data, model).set_index("quantity")["value"].to_dict()
        for metric in every[0]:
            values = [one[metric] for one in every]
            ends = {"first network": values[0], "least": min(values), "largest": max(values)}
            row = {"model": title(data, model), "test metric": metric, **ends, "networks": len(values)}
            rows.append({**row, "authors' checkpoint": theirs.get(metric)})
    yield "<h3>Models</h3>"
    yield table(pd.DataFrame(rows))


def _nearest(runs: Runs) -> Iterable[str]:
    for metric in METRICS:
        yield f"<details><summary>Is the own instance the nearest? ({metric}, mean over inputs)</summary>"
        yield table(nearest(runs, metric))
        yield (
            "<p><i>own</i>: original to its own framework instance; <i>noise</i>: the distance that sampling alone "
            "gives; <i>next</i>: the nearest other instance, those apart that coincide in theory; <i>networks</i>: on "
            "how many trained networks the own instance is nearest, or within noise.</p></details>"
        )


def _equality(runs: Runs) -> Iterable[str]:
    yield "<h3>captum's explanations as the authors stored them, against ours</h3>"
    yield table(authors_models.equality(runs))
    yield (
        "<p>A number alone: the largest difference of a weight, as a share of the largest weight of its input (for "
        "Occlusion of the prediction, where that is larger). z: of what captum sampled, the root mean square of the "
        "differences to a converged fit over our standard errors at 1,000 samples, 1 if both are right; in brackets "
        "the share within 1.96. Where an error is not known (fewer than a few draws meet a kink) nothing is judged.</p>"
    )
    yield "<h3>Their perturbation curves, from the weights they stored</h3>"
    yield table(authors_models.gaps(runs))


def _images(runs: Runs) -> Iterable[str]:
    yield "<h3>Which method wins where</h3><p>The least error among the methods that were not fitted there.</p>"
    yield table(summary(runs))
    for run, manifest in zip(runs.runs, runs.manifests, strict=True):
        yield f"<p>{title(*run)}, patches switched off at random: {html.escape(manifest['recommend'])}</p>"


def _changes(runs: Runs) -> Iterable[str]:
    frame = runs.tables["changes"]
    for change, words in CHANGES.items():
        part = frame[frame["change"] == change].drop(columns="change")
        if len(part):
            yield f"<p>{html.escape(words)}</p>"
            yield table(part)


def _figure(name: str, picture: Picture) -> str:
    parts = [image(picture.image, picture.caption, name)]
    parts += [_details("Numbers", table(picture.numbers))]
    if picture.published is not None:
        parts += [_details("Published (the authors' stored explanations)", table(picture.published))]
    return "\n".join(
        [
            *parts,
            _details("Command", f"<code>{html.escape(shlex.join(['python', '-m', 'paper_figures', name]))}</code>"),
            "</figure>",
        ]
    )


def image(path: Path, caption: str, name: str | None = None) -> str:
    png, text = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
    link = f' <a href="{path.stem}.pdf">PDF</a>' if name else ""
    place = f' id="{name}"' if name else ""
    return f'<figure{place}><img alt="{text}" src="data:image/png;base64,{png}"><figcaption>{text}{link}</figcaption>'


def _commands(commands: Iterable[str]) -> str:
    return _details(
        "Commands that made these results", f"<pre><code>{html.escape(chr(10).join(commands))}</code></pre>"
    )


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>{inside}</details>"


def table(frame: pd.DataFrame) -> str:
    text = frame.to_html(index=False, float_format=lambda value: f"{value:.3g}", na_rep="", border=0)
    return f'<div class="table">{text}</div>'
