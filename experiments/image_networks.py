"""A LeNet-sized network and a small residual one; python -m experiments.image_networks trains both."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import pad

from experiments import files
from experiments.data import Table
from experiments.image_data import cifar10, mnist
from experiments.networks import Trained, arrays_of, loss_of, metrics
from experiments.runs import bar

SHIFT = 3  # pixels by which training images are moved at most, and mirrored if there are colours


@dataclass(frozen=True)
class Training:
    """SGD with Nesterov momentum 0.9, a one-cycle learning rate, label-preserving shifts (and mirror images)."""

    model: str
    epochs: int
    learning_rate: float
    batch: int = 128
    weight_decay: float = 5e-4
    seed: int = 0


RECIPES = {"mnist": Training("lenet", 12, 0.1), "cifar10": Training("resnet", 16, 0.2)}
LOADERS = {"mnist": mnist, "cifar10": cifar10}


class Residual(nn.Module):
    """x + two 3 × 3 convolutions of x, each with batch normalisation; the first may halve the image."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        change = inputs != outputs or stride > 1
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if change else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class Standardise(nn.Module):
    """(x − mean) / spread, one number each for all pixels: images go in as 0 … 1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


def network(model: str, channels: int, classes: int) -> nn.Sequential:
    """Images -> (rows, classes) probabilities, or with two classes (rows, 1) of class 1; `[:-1]` gives logits."""
    outputs = classes if classes > 2 else 1
    if model == "lenet":
        parts = [Standardise(), nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        parts += [nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        parts += [nn.LazyLinear(96), nn.ReLU(), nn.Linear(96, outputs)]
    elif model == "resnet":
        parts = [Standardise(), nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        parts += [Residual(16, 16), Residual(16, 32, 2), Residual(32, 64, 2), Residual(64, 64)]
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, outputs)]
    else:
        raise ValueError(f"model must be lenet or resnet; got {model!r}")
    return nn.Sequential(*parts, nn.Softmax(-1) if classes > 2 else nn.Sigmoid())


def trained(table: Table, training: Training, cache: Path) -> Trained:
    """The network in evaluation mode, from `cache` if it was trained before, and its accuracy on the test images."""
    key = json.dumps([asdict(training), table.sha256, torch.__version__]) + Path(__file__).read_text(encoding="utf-8")
    path = cache / f"{table.name}-{training.model}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        net = network(training.model, table.x_train.shape[1], table.classes)
        with torch.no_grad():
            net.eval()(table.x_train[:2])  # sizes of lazy layers
        if (arrays := files.stored(path)) is None:
            _train(net, table, training)
            files.store(path, arrays_of(net))
        else:
            net.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    net.eval().requires_grad_(False)
    return Trained(net, metrics(net, table), training)  # type: ignore[arg-type]


def _train(net: nn.Sequential, table: Table, training: Training) -> None:
    rng = torch.Generator().manual_seed(training.seed)
    x, y = table.x_train, table.y_train
    steps = training.epochs * -(-len(x) // training.batch)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=training.weight_decay, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, steps)
    net.train()
    for _ in bar(range(training.epochs), f"train {table.name} {training.model}"):
        for rows in torch.randperm(len(x), generator=rng).split(training.batch):
            optimizer.zero_grad()
            loss_of(net[:-1], varied(x[rows], rng), y[rows], table.classes).backward()
            optimizer.step()
            scheduler.step()


def varied(x: Tensor, rng: torch.Generator) -> Tensor:
    """The batch, moved by up to `SHIFT` pixels each way; images of three channels mirrored every second time."""
    down, across, mirror = (int(torch.randint(0, n, (), generator=rng)) for n in (2 * SHIFT + 1, 2 * SHIFT + 1, 2))
    height, width = x.shape[-2:]
    moved = pad(x, [SHIFT] * 4)[..., down : down + height, across : across + width]
    return moved.flip(-1) if mirror and x.shape[1] == 3 else moved


def main(data: tuple[str, ...] = ("mnist", "cifar10"), cache: Path = Path("results/paper/networks")) -> None:
    """Train what is not in the cache, and print test accuracies."""
    for name in data:
        found = trained(LOADERS[name](), RECIPES[name], cache)
        print(f"{name} {RECIPES[name].model}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.metrics.items()))


if __name__ == "__main__":
    tyro.cli(main)
