"""A method: a named triple of neighbourhood, loss and surrogate class."""

from dataclasses import dataclass
from importlib.resources import files

from locapprox.losses import Loss
from locapprox.neighbourhoods import Neighbourhood
from locapprox.surrogates import Linear, Surrogate


@dataclass(frozen=True, eq=False)
class Method:
    """argmin over g ∈ surrogate of E_{ξ∼neighbourhood} loss(f, g, x₀, ξ) (Han et al. 2022, definition 1)."""

    name: str
    neighbourhood: Neighbourhood
    loss: Loss
    surrogate: Surrogate = Linear()
    key: str | None = None  # in references.bib

    def __post_init__(self) -> None:
        for name in ("neighbourhood", "loss", "surrogate"):
            given = getattr(self, name)
            if isinstance(given, type):
                raise TypeError(f"{name} must be an object, got the class {given.__name__}: write {given.__name__}(…)")
        missing = [part for part in ("draw", "place") if not callable(getattr(self.neighbourhood, part, None))]
        if missing:
            raise TypeError(
                f"neighbourhood must have draw and place; {self.neighbourhood!r} lacks {' and '.join(missing)}"
            )
        if not isinstance(self.loss, Loss):
            raise TypeError(f"loss must be SquaredError(), GradientMatching() or a sum of them, got {self.loss!r}")
        if not callable(getattr(self.surrogate, "fit", None)):
            raise TypeError(f"surrogate must have a method fit, like Linear(); got {self.surrogate!r}")

    def citation(self) -> str:
        """BibTeX of the framework and, if it has one, of the method."""
        entries = files("locapprox").joinpath("references.bib").read_text(encoding="utf-8").split("\n\n")
        keys = ["han2022", *([self.key] if self.key else [])]
        return "\n\n".join(e.strip() for key in keys for e in entries if f"{{{key}," in e)
