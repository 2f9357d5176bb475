"""The eight methods by their original libraries, on a common layout of weights: one per feature group.

Masking methods mask the groups `labels`; the other originals weigh single entries of x, whose weights are summed over a
group (exactly what one ξ for the group gives, by the chain rule). On tables every column is its own group.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from captum._utils.models.linear_model import SkLearnLinearModel
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    NoiseTunnel,
    Saliency,
)
from captum.attr._core.lime import get_exp_kernel_similarity_function
from captum.attr._utils.attribution import Attribution
from jaxtyping import Float, Int
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from experiments import files
from experiments.runs import bar

Weights = Float[Tensor, "b d"]
SAMPLED = ("LIME", "KernelSHAP", "C-LIME", "SmoothGrad")


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, what to explain of it, and the settings that the originals and the engine share."""

    model: nn.Module
    x: Float[Tensor, "b ..."]
    target: Int[Tensor, " b"] | None  # the explained output of each instance, if there are several
    labels: Int[Tensor, "..."]  # feature group 0 … d − 1 of every entry of an instance
    n_samples: int
    sigma: float
    width: float  # of the kernel exp(−D²/width²)
    baseline: float = 0.0

    @property
    def groups(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def leaf(self) -> Tensor:
        """x, ready for gradients: captum warns otherwise."""
        return self.x.detach().clone().requires_grad_()

    def sum_groups(self, entries: Float[Tensor, "b ..."]) -> Weights:
        """(b, *input shape) -> (b, d): the sum over each group's entries."""
        flat = entries.detach().flatten(1).double()
        return flat.new_zeros(len(flat), self.groups).index_add(1, self.labels.flatten(), flat)

    def mean_groups(self, entries: Float[Tensor, "b ..."]) -> Weights:
        """Of weights that were copied onto each group's entries: one per group."""
        return self.sum_groups(entries) / self.labels.flatten().bincount()

    def score(self, x: Tensor, target: int | None) -> Tensor:
        """The explained output, (rows,)."""
        return self.model(x)[:, target or 0]


def _gradients(p: Problem, seed: int) -> Weights:
    return p.sum_groups(Saliency(p.model).attribute(p.leaf, target=p.target, abs=False))


def _gradient_x_input(p: Problem, seed: int) -> Weights:
    return p.sum_groups(InputXGradient(p.model).attribute(p.leaf, target=p.target))


def _integrated_gradients(p: Problem, seed: int) -> Weights:
    weights = IntegratedGradients(p.model).attribute(
        p.x, p.baseline, p.target, n_steps=p.n_samples, method="gausslegendre", internal_batch_size=8192
    )
    return p.sum_groups(weights)


def _occlusion(p: Problem, seed: int) -> Weights:
    """captum's FeatureAblation, the same as its Occlusion with a window of one entry, but it takes groups."""
    weights = FeatureAblation(p.model).attribute(p.x, p.baseline, p.target, feature_mask=p.labels[None])
    return p.mean_groups(weights)


def _smoothgrad(p: Problem, seed: int) -> Weights:
    tunnel = NoiseTunnel(Saliency(p.model))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = tunnel.attribute(
            p.x,
            nt_type="smoothgrad",
            nt_samples=p.n_samples,
            nt_samples_batch_size=max(1, 8192 // len(p.x)),
            stdevs=p.sigma,
            target=p.target,
            abs=False,
        )
    return p.sum_groups(weights)


def _by_instance(p: Problem, seed: int, method: Attribution) -> Weights:
    """captum's Lime and KernelShap explain one instance at a time."""
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for i in bar(range(len(p.x)), f"captum {method.get_name()}"):
            one = method.attribute(
                p.x[i : i + 1],
                baselines=p.baseline,
                target=None if p.target is None else int(p.target[i]),
                feature_mask=p.labels[None],
                n_samples=p.n_samples,
                perturbations_per_eval=p.n_samples,
                return_input_shape=False,
            )
            rows.append(one.reshape(1, -1))
    return torch.cat(rows).double()


def _lime(p: Problem, seed: int) -> Weights:
    """captum's kernel is exp(−D²/(2w²)), so w = width/√2; least squares instead of its default Lasso."""
    kernel = get_exp_kernel_similarity_function("euclidean", p.width / 2**0.5)
    return _by_instance(p, seed, Lime(p.model, SkLearnLinearModel("linear_model.LinearRegression"), kernel))


def _kernel_shap(p: Problem, seed: int) -> Weights:
    return _by_instance(p, seed, KernelShap(p.model))


def _c_lime(p: Problem, seed: int) -> Weights:
    """No library has C-LIME: scikit-learn's least squares on fresh Normal(0, σ²I) draws of each instance."""
    rng, rows = torch.Generator().manual_seed(seed), []
    for i, x in enumerate(p.x):
        noise = p.sigma * torch.randn(p.n_samples, *x.shape, generator=rng)
        with torch.no_grad():
            y = p.score(x + noise, None if p.target is None else int(p.target[i]))
        fit = LinearRegression().fit(noise.flatten(1).double().numpy(), y.double().numpy())
        rows.append(torch.from_numpy(fit.coef_).reshape(1, *x.shape))
    return p.sum_groups(torch.cat(rows))


ORIGINALS: dict[str, Callable[[Problem, int], Weights]] = {
    "LIME": _lime,
    "KernelSHAP": _kernel_shap,
    "Occlusion": _occlusion,
    "Integrated Gradients": _integrated_gradients,
    "Gradient x Input": _gradient_x_input,
    "Vanilla Gradients": _gradients,
    "SmoothGrad": _smoothgrad,
    "C-LIME": _c_lime,
}


def computed(p: Problem, seed: int, cache: Path) -> dict[str, Weights]:
    """All eight, kept in `cache` under everything they depend on: captum takes 0.4 s for each instance."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for tensor in [*p.model.state_dict().values(), p.x, p.target, p.labels]:
        digest.update(b"-" if tensor is None else tensor.contiguous().numpy().tobytes())
    versions = [importlib.metadata.version(name) for name in ("captum", "torch", "scikit-learn")]
    digest.update(repr((p.n_samples, p.sigma, p.width, p.baseline, seed, versions, repr(p.model))).encode())
    path = cache / f"{digest.hexdigest()[:24]}.npz"
    if (arrays := files.stored(path)) is not None:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    found = {name: original(p, seed) for name, original in ORIGINALS.items()}
    files.store(path, {name: w.numpy() for name, w in found.items()})
    return found
