"""Image models: time over bare model evaluations and against captum, shap and lime; memory of large runs.

As `experiments.bench`: one process, one thread, in turns, medians of ratios. LeNet on MNIST with 49 patches.

python -m experiments.bench_images              the times
python -m experiments.bench_images --memory     1,000 CIFAR-10 images × 8 methods, and a ResNet-50: their peak memory
"""

import io
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import locapprox as lx
from experiments import files, image_models
from experiments.bench import interleaved

PATCH = 4
SIZES = (32, 64, 128, 256, 512)  # rows per call, for peers and bare evaluations


@dataclass(frozen=True)
class Config:
    instances: int = 10
    n_samples: int = 500
    rounds: int = 5
    memory: bool = False
    images: int = 1000  # of the memory test
    samples: int = 200  # of the memory test


def bare(net: nn.Module, rows: Tensor, gradient: bool, size: int) -> None:
    """The model's evaluations alone."""
    with torch.set_grad_enabled(gradient):
        for chunk in rows.split(size):
            if gradient:
                leaf = chunk.detach().requires_grad_()
                torch.autograd.grad(net(leaf).sum(), leaf)
            else:
                net(chunk)


def fastest(run: Callable[[int], Any]) -> int:
    """The best number of rows per call."""

    def seconds(size: int) -> float:
        start = time.process_time()
        run(size)
        return time.process_time() - start

    return min(SIZES, key=lambda size: min(seconds(size) for _ in range(2)))


def peers(net: nn.Module, x: Tensor, target: Tensor, n: int) -> dict[tuple[str, str], Callable[[int], Any]]:
    """(library, method) -> a run on these images, as a function of its rows per call."""
    import shap
    from captum.attr import FeatureAblation, IntegratedGradients, KernelShap, Lime, NoiseTunnel, Saliency
    from lime.lime_image import LimeImageExplainer

    labels = lx.patches(x.shape, PATCH)[None, None]
    count = int(labels.max()) + 1

    def one_by_one(method: Any, size: int) -> None:
        for image, c in zip(x, target.tolist(), strict=True):
            method.attribute(image[None], target=c, feature_mask=labels, n_samples=n, perturbations_per_eval=size)

    def tunnel(size: int) -> None:
        leaf = x.clone().requires_grad_()
        per_call = max(1, size // len(x))
        NoiseTunnel(Saliency(net)).attribute(
            leaf, nt_samples=n, nt_samples_batch_size=per_call, stdevs=0.1, target=target, abs=False
        )

    def path(size: int) -> None:
        IntegratedGradients(net).attribute(
            x, target=target, n_steps=n, method="gausslegendre", internal_batch_size=max(size, len(x))
        )

    def ablation(size: int) -> None:
        FeatureAblation(net).attribute(
            x, target=target, feature_mask=labels, perturbations_per_eval=max(1, size // len(x))
        )

    def kernel_explainer(size: int) -> None:
        for image, c in zip(x, target.tolist(), strict=True):

            def masked(masks: np.ndarray, image: Tensor = image, c: int = c) -> np.ndarray:
                keep = torch.from_numpy(masks).float()[:, labels[0, 0]][:, None]
                with torch.no_grad():
                    return torch.cat([net(part * image)[:, c] for part in keep.split(size)]).numpy()

            explainer = shap.KernelExplainer(masked, np.zeros((1, count)))
            explainer.shap_values(np.ones((1, count)), nsamples=n, l1_reg=False, silent=True)

    def lime_image(size: int) -> None:
        def predict(rows: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return net(torch.from_numpy(rows).float().mean(-1)[:, None]).numpy()

        for image in x:
            rgb = image[0].double().numpy()[..., None].repeat(3, -1)
            segments = labels[0, 0].numpy()
            explainer = LimeImageExplainer(random_state=0)
            settings = {"hide_color": 0, "num_samples": n, "batch_size": size}
            with redirect_stderr(io.StringIO()):  # its progress bar
                explainer.explain_instance(rgb, predict, segmentation_fn=lambda _, s=segments: s, **settings)

    return {
        ("captum", "KernelSHAP"): partial(one_by_one, KernelShap(net)),
        ("captum", "LIME"): partial(one_by_one, Lime(net)),
        ("captum", "Occlusion"): ablation,
        ("captum", "SmoothGrad"): tunnel,
        ("captum", "Integrated Gradients"): path,
        ("shap", "KernelSHAP"): kernel_explainer,
        ("lime", "LIME"): lime_image,
    }


def times(config: Config, net: nn.Module, x: Tensor, target: Tensor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Over bare evaluations, and against peers with as many samples."""
    n, generator = config.n_samples, torch.Generator().manual_seed(0)
    masks = {"features": lx.patches(x.shape, PATCH)}
    width = float(x.double().square().flatten(1).sum(1).mean().sqrt())
    methods = {"KernelSHAP": lx.kernel_shap(**masks), "LIME": lx.lime(width, **masks)}
    methods |= {"Occlusion": lx.occlusion(**masks), "SmoothGrad": lx.smoothgrad(0.1)}
    methods |= {"Integrated Gradients": lx.integrated_gradients()}

    def engine(name: str) -> None:
        lx.explain(net, x, methods[name], n_samples=n, target=target, progress=False)

    work: dict[str, Callable[[], object]] = {name: partial(engine, name) for name in methods}
    rows = {name: n * len(x) for name in methods} | {"Occlusion": len(x) * (int(masks["features"].max()) + 2)}
    for name, method in methods.items():
        inputs = torch.rand(rows[name], *x.shape[1:], generator=generator)
        alone = partial(bare, net, inputs, method.loss.of_gradients)
        work[f"bare {name}"] = partial(alone, fastest(alone))
    others = peers(net, x, target, n)
    for (library, name), run in others.items():
        work[f"{library} {name}"] = partial(run, fastest(run))
    seconds = interleaved(work, config.rounds)
    over = pd.DataFrame(
        {
            "method": name,
            "milliseconds": 1e3 * seconds[name].median(),
            "over bare evaluations": (seconds[name] / seconds[f"bare {name}"]).median(),
        }
        for name in methods
    )
    against = pd.DataFrame(
        {"peer": library, "method": name, "peer / engine": (seconds[f"{library} {name}"] / seconds[name]).median()}
        for library, name in others
    )
    return over, against


def memory(config: Config) -> pd.DataFrame:
    """Seconds and peak memory of large runs, each in a process of its own."""
    rows = []
    for what in ("cifar10", "resnet50"):
        call = f"from experiments import bench_images as b; b.{what}({config.images}, {config.samples})"
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
        rows.append((what, time.perf_counter() - start, int(done.stdout.split()[-1]) / 2**20))
    return pd.DataFrame(rows, columns=["run", "seconds", "peak GiB"])


def cifar10(images: int, samples: int) -> None:
    """All eight methods on the test images; prints the peak memory in KiB."""
    torch.set_num_threads(1)
    config = image_models.Config("cifar10", "resnet")
    table = image_models.images("cifar10")
    net = image_models.trained(config, Path("results/paper/networks"), table).network
    x = table.x_test[:images]
    with torch.no_grad():
        target = torch.cat([net(part).argmax(1) for part in x.split(64)])
    p = image_models.Problem(net, x, target, config)
    for name, method in p.methods(config.patch, config.baseline).items():
        start = time.perf_counter()
        e = lx.explain(net, x, method, n_samples=samples, target=target)
        print(name, tuple(e.weights.shape), f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def resnet50(images: int, samples: int) -> None:
    """One image of 224 × 224 by 100 segments, with a ResNet-50 of random weights; prints the peak memory in KiB."""
    import transformers

    torch.set_num_threads(1)
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig())
    net = lx.ImageClassifier(model, transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}))
    labels = torch.arange(224) * 10 // 224
    lx.explain(
        net,
        torch.rand(1, 3, 224, 224),
        lx.kernel_shap(features=labels[:, None] * 10 + labels),
        n_samples=2 * samples,
        target=0,
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main(config: Config, out: Path = Path("results/bench"), cache: Path = Path("results/paper/networks")) -> None:
    torch.set_num_threads(1)
    pd.options.display.float_format = "{:.3g}".format
    if config.memory:
        frames = {"memory": memory(config)}
    else:
        settings = image_models.Config("mnist", "lenet")
        table = image_models.images("mnist")
        net = image_models.trained(settings, cache, table).network
        x = table.x_explain[: config.instances]
        over, against = times(config, net, x, net(x).argmax(1))
        frames = {"images_over_evaluations": over, "images_against_peers": against}
        print(f"LeNet, {config.instances} images, 49 patches, {config.n_samples} samples, one thread")
    for name, frame in frames.items():
        print(frame.to_string(index=False), "\n")
        files.write(out / f"{name}.csv", lambda part, frame=frame: frame.to_csv(part, index=False))  # type: ignore[misc]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
