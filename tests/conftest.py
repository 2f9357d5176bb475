"""What all tests share: the paper's data where it is, one thread, no display, small networks."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

# ruff: noqa: E402 (matplotlib reads its backend when it is imported)
os.environ["MPLBACKEND"] = "Agg"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if "LOCAPPROX_DATA" not in os.environ and SHARED.is_dir():
    os.environ["LOCAPPROX_DATA"] = str(SHARED)

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from locapprox import BaseNeighbourhood, Draw
from locapprox.fit import minimise, newton, sampling
from locapprox.fit.kept import Recent

torch.set_num_threads(1)

# Which activation the authors' networks have is found by recomputing their stored gradients (test_methods.py).
AUTHORS = {
    "who_linear": (None, False),
    "who_ffnnA": (nn.Tanh, False),
    "heloc_logistic": (None, True),
    "heloc_ffnnA": (nn.ReLU, True),
}


class AuthorsModel:
    """One of the authors' trained models (float32), the 100 points they explained, and their explanations."""

    def __init__(self, name: str, path: Path) -> None:
        activation, sigmoid = AUTHORS[name]
        with np.load(path) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        self.name, self.x = name, arrays["X"]
        self.stored = {key.removeprefix("explanation/"): v for key, v in arrays.items() if key.startswith("expl")}
        self.smooth = activation is not nn.ReLU
        self._parameters, self._sigmoid = {k: v for k, v in arrays.items() if k.startswith("model/")}, sigmoid
        self.model = self.network(activation)

    def network(self, activation: type[nn.Module] | None) -> nn.Sequential:
        names = sorted({key.rsplit(".", 1)[0] for key in self._parameters})
        parts: list[nn.Module] = []
        for name in names:
            weight, bias = self._parameters[f"{name}.weight"], self._parameters[f"{name}.bias"]
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            parts += [layer, *([activation()] if activation and name != names[-1] else [])]
        return nn.Sequential(*parts, *([nn.Sigmoid()] if self._sigmoid else [])).eval()


@pytest.fixture(autouse=True)
def no_draw_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one test to the next: what a test breaks on purpose is drawn anew, and let go."""
    monkeypatch.setattr(sampling, "_recent", Recent())


@pytest.fixture
def errors_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard errors of however few draws: where they are not known is a subject of its own (test_evidence)."""
    for module in (minimise, newton):
        monkeypatch.setattr(module, "known", lambda estimate, units, sample: estimate.standard_error)


@pytest.fixture(scope="session")
def authors() -> Iterator:
    """A function from a name to an `AuthorsModel`; skips where the data is absent."""
    loaded: dict[str, AuthorsModel] = {}

    def get(name: str) -> AuthorsModel:
        folder = Path(os.environ.get("LOCAPPROX_DATA", "")) / "authors"
        if "LOCAPPROX_DATA" not in os.environ or not (folder / f"{name}.npz").is_file():
            pytest.skip(f"no {name}.npz in $LOCAPPROX_DATA/authors")
        if name not in loaded:
            loaded[name] = AuthorsModel(name, folder / f"{name}.npz")
        return loaded[name]

    return get


def _network(activation: type[nn.Module], seed: int, dtype: torch.dtype, outputs: int = 1) -> nn.Sequential:
    rng = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in ((6, 10), (10, 10), (10, outputs)):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(fan_out, fan_in, generator=rng) * (1.5 / fan_in**0.5))
            layer.bias.copy_(torch.randn(fan_out, generator=rng) * 0.3)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1]).to(dtype).eval()


@pytest.fixture(scope="session")
def tanh_net() -> nn.Sequential:
    """Six inputs, one output, smooth, float64."""
    return _network(nn.Tanh, 1, torch.float64)


@pytest.fixture(scope="session")
def relu_net() -> nn.Sequential:
    return _network(nn.ReLU, 2, torch.float64)


@pytest.fixture(scope="session")
def three_outputs() -> nn.Sequential:
    return _network(nn.Tanh, 3, torch.float64, outputs=3)


@pytest.fixture(scope="session")
def x() -> Tensor:
    """Five instances of six features, float64."""
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


class Given(BaseNeighbourhood):
    """A neighbourhood whose draw is given: x + ξ, or x ⊙ ξ; in blocks that end at the rows `cuts`."""

    draws_at_once = True

    def __init__(self, draw: Draw, cuts: tuple[int, ...] = (), additive: bool = True) -> None:
        self.given, self.cuts, self.additive = draw, cuts, additive

    def at(self, x: Tensor, instances: Tensor | slice) -> "Given":
        if self.given.weight.ndim == 1:
            return self
        return type(self)(replace(self.given, weight=self.given.weight[instances]), self.cuts, self.additive)

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        return self.given

    def blocks(self, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
        g = self.given
        for start, end in zip((0, *self.cuts), (*self.cuts, g.weight.shape[-1]), strict=True):
            fixed = max(0, min(g.n_fixed - start, end - start))
            yield Draw(g.xi[..., start:end, :], g.weight[..., start:end], unit_size=g.unit_size, n_fixed=fixed)

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        return x.unsqueeze(1) + xi if self.additive else x.unsqueeze(1) * xi


@pytest.fixture(scope="session")
def given() -> type[Given]:
    return Given


def _draw_of(neighbourhood: object, x: Tensor, n: int, seed: int = 0, role: str = "fit") -> Draw:
    from locapprox.fit.seeds import generator
    from locapprox.neighbourhoods.base import described

    where = described(neighbourhood)
    draws = list(where.blocks(x, n, generator(seed, where, role, x)))
    return Draw(
        torch.cat([d.xi for d in draws], dim=-2),
        torch.cat([d.weight for d in draws], dim=-1),
        unit_size=draws[-1].unit_size,
        n_fixed=sum(d.n_fixed for d in draws),
    )


@pytest.fixture(scope="session")
def draw_of():
    """The draw that explain() makes: f(neighbourhood, x, n, seed, role)."""
    return _draw_of
