"""Limits of neighbourhoods that shrink to a point, for surrogates whose minimisers have one."""

from dataclasses import dataclass

from locapprox.neighbourhoods.distributions import PointMass


@dataclass(frozen=True, repr=False)
class Limit(PointMass):
    """ξ ∼ Normal(value, σ²I) as σ → 0: the limit of the minimisers, where a minimiser at the point is not unique.

    At a single point every g through f(x₀) has squared error 0, and a logistic g has a gradient error of 0 for any
    intercept; nothing there is to be minimised. Around it, with ξ = value + σz, f = f₀ + σ ∇f · z + O(σ²), and the loss
    of g = s(w · ξ + c) is v (f₀ − g₀)² + σ² v ‖∇f − s′w‖² + O(σ⁴) from values and ‖∇f − s′w‖² + O(σ²) from gradients.
    So under every loss with a part of values the limit matches value and gradient, at a rate of σ²:

        w = ∇f / s′(η₀), η₀ = link⁻¹(f₀), c = η₀ − w · value;  s′ = f₀ (1 − f₀) of a logistic g, 1 of a linear one.

    Under gradient matching alone a linear g has the same w. A logistic one has not: all c with s′(c) w = ∇f are at 0,
    and the next order, σ² ‖∇²f − s″ w wᵀ‖², takes the g₀ with (1 − 2g₀) / (g₀ (1 − g₀)) = ∇fᵀ ∇²f ∇f / ‖∇f‖⁴. That
    is f₀ where f is logistic, and elsewhere a statement about f's curvature; it is refused.
    """

    value: float = 0.0
    shrinks = True
