"""A method: a named triple of neighbourhood, loss and surrogate class."""

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from torch import Tensor

from locapprox._parts import Concise
from locapprox.fit.loss_contract import checked_loss
from locapprox.fit.losses import RowLoss
from locapprox.fit.surrogates import Linear, Surrogate, described_surrogate
from locapprox.neighbourhoods.base import Neighbourhood, described

if TYPE_CHECKING:
    from locapprox._explainer import Explainer


@dataclass(frozen=True, eq=False, repr=False)
class Method(Concise):
    """argmin over g ∈ surrogate of E_{ξ∼neighbourhood} loss(f, g, x₀, ξ) (Han et al. 2022, definition 1).

    `reference` is what `citation` adds: a BibTeX entry, or the key of one that the library has.
    """

    name: str
    neighbourhood: Neighbourhood
    loss: RowLoss
    surrogate: Surrogate = Linear()
    reference: str | None = None

    def __post_init__(self) -> None:
        for name in ("neighbourhood", "loss", "surrogate"):
            given = getattr(self, name)
            if isinstance(given, type):
                raise TypeError(f"{name} must be an object, got the class {given.__name__}: write {given.__name__}(…)")
        where, surrogate = described(self.neighbourhood), described_surrogate(self.surrogate)
        surrogate.check_loss(checked_loss(self.loss))
        surrogate.check_neighbourhood(where)
        if where.shrinks:
            surrogate.check_limit(self.loss)

    def citation(self) -> str:
        """BibTeX of the framework and, if it has one, of the method."""
        entries = files("locapprox").joinpath("references.bib").read_text(encoding="utf-8").split("\n\n")
        wanted = ["han2022", *([self.reference] if self.reference else [])]
        return "\n\n".join(
            w if w.startswith("@") else next(e.strip() for e in entries if f"{{{w}," in e) for w in wanted
        )

    def explainer(self, *, n_samples: int = 1000, seed: int = 0, batch_size: int | None = None) -> "Explainer":
        """This method as a function (model, x, target) -> maps laid out like x, with these settings of `explain`."""
        from locapprox._explain import explain
        from locapprox._explainer import Explainer

        def maps(model: Any, x: Any, target: Any) -> Tensor:
            e = explain(
                model, x, self, n_samples=n_samples, target=target, seed=seed, batch_size=batch_size, progress=False
            )
            return e.on_input()

        return Explainer(self.name, maps, like=self)
