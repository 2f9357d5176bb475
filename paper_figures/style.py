"""Fonts, sizes and one colour per method family, for every figure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
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
SEQUENTIAL = "viridis"  # perceptually uniform

TABLES = {"who": "WHO", "heloc": "HELOC", "diabetes": "Diabetes", "breast_cancer": "Breast cancer", "digits": "Digits"}
MODELS = {
    "linear": "linear",
    "logistic": "logistic",
    "ffnnA": "network A",
    "ffnnB": "network B",
    "ffnnC": "network C",
    "mlp": "MLP",
    "cnn": "CNN",
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
    """9-point sans serif, 160 dots per inch, editable text in PDF."""
    with mpl.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "savefig.dpi": 160,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write path.pdf and path.png (the same bytes for the same figure) and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(path.with_suffix(".png"))
    plt.close(figure)
    return path.with_suffix(".png")
