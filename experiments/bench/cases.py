"""What is timed: models, instances and methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from torch import Tensor, nn

import locapprox as lx
from experiments import image_models, networks
from experiments.data import Table, load

SIGMA = 0.1


@dataclass(frozen=True, eq=False)
class Case:
    """Instances of one model, and the methods that explain them, `n_samples` draws each."""

    name: str
    model: Any  # as `lx.explain` takes it
    x: Tensor | np.ndarray
    n_samples: int
    methods: Mapping[str, lx.Method]
    target: Tensor | None = None
    train: np.ndarray | None = None  # rows that lime's tabular explainer learns from
    labels: Tensor | None = None  # features of an input
    background: Tensor | None = None
    peers: bool = True
    fewer: Mapping[str, int] = field(default_factory=dict)  # draws of a method, where they are others

    def n(self, method: str) -> int:
        return self.fewer.get(method, self.n_samples)


def standard(width: float, **masks: Any) -> dict[str, lx.Method]:
    """The eight methods; `width` of LIME's kernel on the input."""
    return {
        "KernelSHAP": lx.kernel_shap(**masks),
        "LIME": lx.lime(width, **masks),
        "Occlusion": lx.occlusion(**masks),
        "C-LIME": lx.c_lime(SIGMA),
        "SmoothGrad": lx.smoothgrad(SIGMA),
        "Integrated Gradients": lx.integrated_gradients(),
        "Vanilla Gradients": lx.vanilla_gradients(),
        "Gradient x Input": lx.gradient_x_input(),
    }


@cache
def table(name: str) -> Table:
    return load(name)


@cache
def net(data: str, model: str, cache_: Path) -> nn.Module:
    return networks.trained(table(data), networks.recipe(data, model), cache_).network


def rows(data: str, count: int) -> Tensor:
    """As many instances: those that experiments explain, then others."""
    some = table(data)
    return torch.cat([some.x_explain, some.x_train, some.x_test])[:count]


def network_c(count: int, n: int, cache_: Path, names: tuple[str, ...] = ()) -> Case:
    """8 layers of width 8, 23 features: the cheapest model there is, so that everything else shows."""
    x = rows("heloc", count)
    every = standard(0.75 * x.shape[1] ** 0.5) | {"lime tabular": lx.Method("", tabular(), lx.SquaredError())}
    methods = {name: every[name] for name in names or every}
    return Case(f"network C, N = {count:,}", net("heloc", "ffnnC", cache_), x, n, methods, train=train("heloc"))


def tabular() -> lx.LimeTabular:
    """lime's default neighbourhood is around the data's mean; its ridge (α = 1 on n rows) is least squares here."""
    return lx.LimeTabular.of_data(table("heloc").x_train)


def train(data: str) -> np.ndarray:
    return table(data).x_train.numpy()


def trees(kind: str, count: int, n: int) -> Case:
    """HELOC; removed features are at the mean."""
    some = table("heloc")
    make = HistGradientBoostingRegressor if kind == "boosting" else RandomForestRegressor
    settings: dict[str, Any] = {"random_state": 0} | ({} if kind == "boosting" else {"n_jobs": 1})
    model = make(**settings).fit(some.x_train.double().numpy(), some.y_train.numpy())
    mean = some.x_train.double().mean(0)
    methods = standard(0.75 * mean.numel() ** 0.5, baseline=mean)
    kept = ("KernelSHAP", "LIME", "Occlusion", "C-LIME")
    x = rows("heloc", count).double().numpy()
    return Case(f"{kind}, N = {count}", model, x, n, {k: methods[k] for k in kept}, train=train("heloc"))


def wide(d: int, count: int, n: int) -> Case:
    """d–128–128–1 with random weights, on standard normal inputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(d, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)).eval()
        x, learn = torch.randn(count, d), torch.randn(500, d).numpy()
    methods = standard(0.75 * d**0.5)
    kept = {k: methods[k] for k in ("KernelSHAP", "LIME", "C-LIME", "SmoothGrad")}
    return Case(f"wide network, d = {d:,}", model, x, n, kept, train=learn, fewer={"SmoothGrad": 100})


def lenet(count: int, n: int, cache_: Path) -> Case:
    """MNIST; 49 patches."""
    settings = image_models.Config("mnist", "lenet")
    found = image_models.trained(settings, cache_, image_models.images("mnist"))
    x = image_models.images("mnist").x_explain[:count]
    labels = lx.patches(x.shape, 4)
    width = float(x.double().square().flatten(1).sum(1).mean().sqrt())
    methods = standard(width, features=labels)
    kept = {k: methods[k] for k in ("KernelSHAP", "LIME", "Occlusion", "SmoothGrad", "Integrated Gradients")}
    return Case("LeNet, 49 patches", found.network, x, n, kept, found.network(x).argmax(1), labels=labels)


class Residual(nn.Module):
    """Two convolutions beside a path that skips them (He et al. 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.Conv2d(outside, outside, 3, 1, 1)
        self.body = nn.Sequential(first, nn.BatchNorm2d(outside), nn.ReLU(), second, nn.BatchNorm2d(outside))
        same = inside == outside and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet18() -> Case:
    """One image of 224 × 224; random weights, which cost what trained ones do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        parts += [nn.MaxPool2d(3, 2, 1)]
        for inside, outside, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
            parts += [Residual(inside, outside, stride), Residual(outside, outside, 1)]
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
        model, x = nn.Sequential(*parts).eval().requires_grad_(False), torch.rand(1, 3, 224, 224)
    labels = lx.patches(x.shape, 56)
    methods = standard(100.0, features=labels)
    few = {"KernelSHAP": 60, "LIME": 60, "SmoothGrad": 16, "Integrated Gradients": 16}
    kept = {k: m for k, m in methods.items() if k != "C-LIME"}
    return Case("ResNet-18, one image", model, x, 60, kept, torch.tensor([3]), labels=labels, fewer=few)


def with_background(cache_: Path) -> Case:
    """Network C, removed features averaged over 100 rows."""
    some = rows("heloc", 105)
    methods = {"KernelSHAP": lx.kernel_shap(baseline=lx.Background(some[5:]))}
    return Case(
        "network C, background of 100", net("heloc", "ffnnC", cache_), some[:5], 1000, methods, background=some[5:]
    )


def surrogates(cache_: Path) -> Case:
    """Other classes of surrogates, on the same draws."""
    fair, noise = lx.Multiplicative(lx.FairMasks(), kernel=lx.ExponentialKernel(3.6)), lx.Additive(lx.Normal(SIGMA))
    squares, slopes = lx.SquaredError(), lx.GradientMatching()
    methods = {
        "constrained LIME": lx.Method("", fair, squares, lx.Constrained(lambda w, intercept: [w >= 0])),
        "sparse LIME": lx.Method("", fair, squares, lx.Sparse(5)),
        "logistic LIME": lx.Method("", fair, squares, lx.Logistic()),
        "logistic C-LIME": lx.Method("", noise, squares, lx.Logistic()),
        "logistic SmoothGrad": lx.Method("", noise, slopes, lx.Logistic()),
    }
    x = rows("heloc", 100)
    return Case("surrogates, network C", net("heloc", "ffnnC", cache_), x, 1000, methods, peers=False)


def cases(cache_: Path) -> dict[str, Callable[[], Case]]:
    """By name."""
    many = ("KernelSHAP", "LIME", "C-LIME")
    return {
        "one": lambda: network_c(1, 1000, cache_),
        "hundred": lambda: network_c(100, 1000, cache_),
        "many": lambda: network_c(10_000, 200, cache_, many),
        "boosting": lambda: trees("boosting", 30, 1000),
        "boosting-one": lambda: trees("boosting", 1, 1000),
        "forest": lambda: trees("forest", 4, 1000),
        "forest-one": lambda: trees("forest", 1, 1000),
        "wide-200": lambda: wide(200, 100, 1000),
        "wide-1000": lambda: wide(1000, 100, 2500),
        "lenet": lambda: lenet(10, 500, cache_),
        "resnet": resnet18,
        "background": lambda: with_background(cache_),
        "surrogates": lambda: surrogates(cache_),
    }
