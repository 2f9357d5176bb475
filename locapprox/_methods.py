"""Table 1 of Han, Srinivas and Lakkaraju (2022): every method is a neighbourhood and a loss.

    method             ξ                                      placed          weight              loss
    C-LIME             Normal(0, σ²I)                         additive        1                   squared error
    SmoothGrad         Normal(0, σ²I)                         additive        1                   gradient matching
    Vanilla Gradients  Normal(0, σ²I), σ → 0                  additive        1                   gradient matching
    Integrated Grad.   one number ~ Uniform(0, 1)             multiplicative  1                   gradient matching
    Gradient × Input   one number ~ Uniform(a, 1), a → 1      multiplicative  1                   gradient matching
    LIME               fair binary masks                      multiplicative  exponential kernel  squared error
    KernelSHAP         binary masks                           multiplicative  Shapley kernel      squared error
    Occlusion          each feature removed in turn           multiplicative  1                   squared error

Limits are taken exactly (a point mass). Occlusion and KernelSHAP also interpolate the input (and KernelSHAP the
baseline): rows of infinite weight. Masking methods take a `baseline` and `features`, see `Multiplicative`.
"""

from locapprox._method import Method
from locapprox.fit.losses import GradientMatching, SquaredError
from locapprox.fit.surrogates import Linear, Surrogate
from locapprox.neighbourhoods.baselines import BaselineLike
from locapprox.neighbourhoods.distributions import Distribution, Normal, PointMass, Sigma
from locapprox.neighbourhoods.kernels import ExponentialKernel
from locapprox.neighbourhoods.labels import Features
from locapprox.neighbourhoods.masks import FairMasks, LeaveOneOut, ShapleyMasks
from locapprox.neighbourhoods.placements import Additive, Multiplicative
from locapprox.neighbourhoods.quadratures import Fejer, GaussLegendre
from locapprox.neighbourhoods.units import SIGMA, ZERO

LINEAR, FEJER = Linear(), Fejer()


def c_lime(sigma: Sigma = SIGMA, antithetic: bool | None = None) -> Method:
    """Agarwal et al. 2021: a line through f in Gaussian noise of standard deviation σ (one, or one per entry).

    From n_samples ≥ 8 (d + 1) and 160 on, draws are pairs ξ, −ξ, from which a weight learns nothing of the even part of
    f around x₀: near x₀ that is most of what is not linear. `antithetic=False` draws independently, as the paper does.
    """
    return Method("C-LIME", Additive(Normal(sigma, antithetic)), SquaredError(), reference="agarwal2021")


def smoothgrad(sigma: Sigma = SIGMA, sobol: bool = True) -> Method:
    """Smilkov et al. 2017: w = E ∇f(x₀ + ξ), signed. σ is absolute, not a share of the input's range.

    ξ are Sobol's points in 16 independent copies: see `Normal`. `sobol=False` draws independently, as the paper does.
    """
    return Method("SmoothGrad", Additive(Normal(sigma, sobol=sobol)), GradientMatching(), reference="smilkov2017")


def vanilla_gradients() -> Method:
    """Simonyan et al. 2014: w = ∇f(x₀)."""
    return Method("Vanilla Gradients", Additive(PointMass(0.0)), GradientMatching(), reference="simonyan2014")


def integrated_gradients(
    baseline: BaselineLike = ZERO, features: Features | None = None, rule: Distribution = FEJER
) -> Method:
    """Sundararajan et al. 2017: w = (x₀ − b) ⊙ ∫₀¹ ∇f(b + t(x₀ − b)) dt.

    By nested rules (`Fejer`) an instance takes more and more nodes until the error is below 10⁻⁶ of its largest weight
    (few do if f has kinks) or n_samples are spent; `e.n_samples` says where it stopped. `rule=lx.GaussLegendre()` takes
    n_samples nodes, as captum does.
    """
    where = Multiplicative(rule, baseline, features)
    return Method("Integrated Gradients", where, GradientMatching(), reference="sundararajan2017")


def gradient_x_input(baseline: BaselineLike = ZERO, features: Features | None = None) -> Method:
    """Shrikumar et al. 2016: w = (x₀ − b) ⊙ ∇f(x₀)."""
    where = Multiplicative(PointMass(1.0), baseline, features)
    return Method("Gradient x Input", where, GradientMatching(), reference="shrikumar2016")


def lime(width: float | None = None, baseline: BaselineLike = ZERO, features: Features | None = None) -> Method:
    """Ribeiro et al. 2016, on masks: a line through f with weights exp(−‖x₀ − x_ξ‖² / width²).

    Without a width, each instance gets the narrowest that leaves an effective share of the draws of 1/4, twice as many
    effective rows as unknowns, and every feature: see `ExponentialKernel`. `e.settings["width"]` has them.
    """
    where = Multiplicative(FairMasks(), baseline, features, kernel=ExponentialKernel(width))
    return Method("LIME", where, SquaredError(), reference="ribeiro2016")


def kernel_shap(
    baseline: BaselineLike = ZERO, features: Features | None = None, surrogate: Surrogate = LINEAR
) -> Method:
    """Lundberg and Lee 2017: Shapley values of v(S) = f(b + (x₀ − b) ⊙ 1_S); exact if n_samples ≥ 2ᵈ.

    With `surrogate=lx.Walsh()` a model that takes more than about 40 µs a row is asked for fewer of them: see `Walsh`.
    """
    where = Multiplicative(ShapleyMasks(), baseline, features)
    return Method("KernelSHAP", where, SquaredError(), surrogate, reference="lundberg2017")


def occlusion(baseline: BaselineLike = ZERO, features: Features | None = None) -> Method:
    """Zeiler and Fergus 2014: w_j = f(x₀) − f(x₀ without feature j)."""
    return Method(
        "Occlusion", Multiplicative(LeaveOneOut(), baseline, features), SquaredError(), reference="zeiler2014"
    )


def paper_methods() -> dict[str, Method]:
    """The eight methods with the paper's settings: σ = 0.1, width 1, baseline 0, exact limits, captum's nodes."""
    methods = [lime(1.0), c_lime(antithetic=False), kernel_shap(), occlusion(), vanilla_gradients(), gradient_x_input()]
    methods += [smoothgrad(sobol=False), integrated_gradients(rule=GaussLegendre())]
    return {method.name: method for method in methods}
