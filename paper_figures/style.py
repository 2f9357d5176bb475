"""Fonts, sizes and one colour per method family, for every figure."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

FAMILIES = {
    "mask": ("LIME", "KernelSHAP", "Occlusion"),
    "path": ("Integrated Gradients", "Gradient x Input"),
    "local": ("Vanilla Gradients", "SmoothGrad", "C-LIME"),
}
METHODS = tuple(method for methods in FAMILIES.values() for method in methods)
FAMILY_COLOURS = dict(zip(FAMILIES, sns.color_palette("colorblind", len(FAMILIES)), strict=True))
COLOURS = {method: FAMILY_COLOURS[family] for family, methods in FAMILIES.items() for method in methods}
SHORT = {
    "Integrated Gradients": "Int. Gradients",
    "Gradient x Input": "Gradient × Input",
    "Vanilla Gradients": "Vanilla Grad.",
}
MARKERS = dict(zip(METHODS, "os^DPvX*", strict=True))
WIDTH = 5.5  # inches, a text column
SEQUENTIAL = "viridis"  # perceptually uniform

TABLES = {"who": "WHO", "heloc": "HELOC", "diabetes": "Diabetes", "breast_cancer": "Breast cancer", "digits": "Digits"}
TABLES |= {"mnist": "MNIST", "cifar10": "CIFAR-10"}
MODELS = {
    "linear": "linear",
    "logistic": "logistic",
    "ffnnA": "network A",
    "ffnnB": "network B",
    "ffnnC": "network C",
    "mlp": "MLP",
    "cnn": "CNN",
    "lenet": "LeNet",
    "resnet": "ResNet",
}


def title(data: str, model: str) -> str:
    return f"{TABLES.get(data, data)}, {MODELS.get(model, model)}"


def number(value: float) -> str:
    """At most five characters for a small cell: 0.012, 3.4, 2e-7."""
    if value == 0:
        return "0"
    if value < 0.01:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


@contextmanager
def style() -> Iterator[None]:
    """8-point sans serif at column width, 200 dots per inch, editable text in PDF."""
    with mpl.rc_context(
        {
            "font.size": 8,
            "axes.titlesize": 9,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        yield


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure that was drawn."""

    image: Path  # PNG; the PDF lies beside it
    caption: str
    numbers: pd.DataFrame  # what it shows
    published: pd.DataFrame | None = None  # the same from the authors' files


def short(names: Iterable[str]) -> list[str]:
    """Names of methods that fit a tick."""
    return [SHORT.get(name, name) for name in names]


def save(figure: Figure, path: Path) -> Path:
    """Write path.pdf and path.png (the same bytes for the same figure) and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.set_layout_engine("none")  # it stays as it is laid out now
    figure.savefig(path.with_suffix(".png"))
    plt.close(figure)
    return path.with_suffix(".png")
