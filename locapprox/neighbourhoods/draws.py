"""A draw: perturbations ξ and their weights."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from locapprox._parts import whole_number
from locapprox.models.inputs import all_finite


@dataclass(frozen=True, eq=False)
class Draw:
    """Perturbations and their weights.

    `weight` is (n,), or (b, n) if it depends on the instance; inf means "the surrogate must interpolate this point".
    Rows are independent unless said otherwise: after the first `n_fixed` rows, which are not random (enumerated, or
    nodes of a quadrature, or a share of what is drawn without replacement, see `ShapleyMasks`), every `unit_size`
    consecutive rows were drawn together (2 for complementary pairs).
    Or the rows are `replicates` independent sets in turn: row r of the whole draw is of set r mod `replicates`, whose
    rows depend on each other (points of a randomised sequence). Errors are then from the spread between sets.
    `coarse_weight` are weights of a coarser quadrature on the same nodes, or of several (r, n), coarsest first; the
    difference is the reported error.
    """

    xi: Float[Tensor, "*b n d"]
    weight: Float[Tensor, "*g n"]
    unit_size: int = 1
    n_fixed: int = 0
    coarse_weight: Float[Tensor, "*r n"] | None = None
    replicates: int = 0

    def __post_init__(self) -> None:
        for name, part in {"xi": self.xi, "weight": self.weight, "coarse_weight": self.coarse_weight}.items():
            if not isinstance(part, Tensor) and not (part is None and name == "coarse_weight"):
                raise TypeError(f"a draw's {name} must be a tensor, got {type(part).__name__}")
        if not self.xi.is_floating_point() or self.xi.ndim not in (2, 3):
            raise ValueError(
                f"a draw's xi must be floating numbers (n, d) or (b, n, d), got {self.xi.dtype}, {tuple(self.xi.shape)}"
            )
        n = self.xi.shape[-2]
        if self.weight.ndim not in (1, 2) or self.weight.shape[-1] != n:
            raise ValueError(f"a draw of {n} rows needs weight (n,) or (b, n), got {tuple(self.weight.shape)}")
        coarse = self.coarse_weight
        if coarse is not None and (coarse.ndim not in (1, 2) or coarse.shape[-1] != n):
            raise ValueError(f"a draw of {n} rows needs coarse_weight (n,) or (r, n), got {tuple(coarse.shape)}")
        unit, fixed = whole_number(self.unit_size, "unit_size"), whole_number(self.n_fixed, "n_fixed", least=0)
        if fixed > n or (n - fixed) % unit:
            raise ValueError(
                f"a draw of {n} rows cannot have n_fixed={fixed} and units of {unit}: the rows after the fixed ones "
                "are whole units"
            )
        if whole_number(self.replicates, "replicates", least=0) and (fixed or unit > 1):
            raise ValueError("a draw has units, or fixed rows, or replicates of all its rows")

    def check(self, b: int) -> None:
        """Raise ValueError unless it suits b instances, and has numbers that can be fitted."""
        if (self.xi.ndim == 3 and len(self.xi) != b) or (self.weight.ndim == 2 and len(self.weight) not in (1, b)):
            raise ValueError(
                f"a draw for {b} instances needs xi (n, d) or (b, n, d) and weight (n,) or (b, n); got xi "
                f"{tuple(self.xi.shape)} and weight {tuple(self.weight.shape)}"
            )
        if not all_finite(self.xi):
            raise ValueError("a draw's xi must not be NaN or infinite")
        if self.weight.numel() and not bool(self.weight.amin() >= 0):  # NaN too
            raise ValueError("a draw's weights must not be negative or NaN")


def as_draw(given: Any, whose: str) -> Draw:
    """What `draw` of a part returned, or TypeError."""
    if not isinstance(given, Draw):
        raise TypeError(f"{whose}.draw must return lx.Draw(xi, weight), got {type(given).__name__}")
    return given


def block_size(d: int) -> int:
    """Draws that are held at once: a function of d alone, so that no result depends on `batch_size`."""
    return max(2, min(1024, 2**22 // d) // 2 * 2)
