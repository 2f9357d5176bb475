"""python -m paper_figures [--results results/paper]: draw everything that is there, and an index page."""

import base64
import html
from pathlib import Path

import pandas as pd
import tyro

from paper_figures import experiment1, no_free_lunch
from paper_figures.results import Experiment1, NoFreeLunch, nearest, read, read_no_free_lunch

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Experiment 1</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }} figcaption {{ color: #444 }} figure {{ margin: 2rem 0 }}
table {{ border-collapse: collapse; font-size: 13px }} td, th {{ padding: .15rem .6rem; text-align: right }}
tr:nth-child(even) {{ background: #f3f3f3 }} code {{ font-size: 13px }}
</style>
<h1>Experiment 1: eight methods by their original library and by one engine</h1>
{body}
</html>
"""


def main(results: Path = Path("results/paper")) -> Path:
    """Draw results/figures/*.pdf and .png and results/figures/index.html; returns the page."""
    experiment, folder = read(results), results / "figures"
    figures = experiment1.draw(experiment, folder)
    body = _body(experiment, figures)
    if (results / "no_free_lunch").is_dir():
        found = read_no_free_lunch(results)
        body += _no_free_lunch(found, no_free_lunch.draw(found, folder))
    page = folder / "index.html"
    page.write_text(PAGE.format(body="\n".join(body)), encoding="utf-8")
    return page


def _body(experiment: Experiment1, figures: list[experiment1.Figure]) -> list[str]:
    models = pd.DataFrame(
        [
            {"data": d, "model": m, **x["metrics"]}
            for (d, m), x in zip(experiment.runs, experiment.manifests, strict=True)
        ]
    )
    parts = ["<h2>Models (test metrics)</h2>", _table(models)]
    for metric in experiment1.METRICS:
        parts += [f"<h2>Is the own instance the nearest? {metric}, mean over inputs</h2>"]
        parts += [_table(nearest(experiment, metric))]
    parts += [
        "<p><i>own</i>: original to its own framework instance; <i>noise</i>: the distance that sampling alone gives"
        "; <i>next</i>: the nearest other instance, those apart that coincide in theory.</p><h2>Figures</h2>"
    ]
    parts += [_figure(figure) for figure in figures]
    commands = "\n".join(manifest["command"] for manifest in experiment.manifests)
    return [*parts, f"<h2>Made by</h2><pre><code>{html.escape(commands)}\npython -m paper_figures</code></pre>"]


def _no_free_lunch(found: NoFreeLunch, figure: experiment1.Figure) -> list[str]:
    """The figure, and per method the column in which it is farthest from the optimum."""
    commands = html.escape("\n".join(manifest["command"] for manifest in found.manifests))
    return [
        "<h1>No free lunch: every method on every neighbourhood</h1>",
        _figure(figure),
        _table(found.tables["verdict"]),
        "<p><i>lost</i>: regret in the worst column, as a share of the best constant's loss; <i>lost_low</i>: the "
        "largest lower bound (95 %, over instances and draws) of all columns. At the optimum everywhere: at most 1e-6."
        f"</p><pre><code>{commands}</code></pre>",
    ]


def _figure(figure: experiment1.Figure) -> str:
    png = base64.b64encode(figure.image.read_bytes()).decode()
    caption = html.escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{png}"><figcaption>{caption} '
        f'<a href="{figure.image.stem}.pdf">PDF</a></figcaption></figure>'
    )


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, float_format=lambda value: f"{value:.3g}", na_rep="", border=0)


if __name__ == "__main__":
    print(tyro.cli(main))
