"""θ of every feature of an odd process (`fit/odd`) for one instance, by marginal likelihood."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.odd import Process, sinh_ratio

STEPS = 20
SPREAD = 2.0, 2.0  # of the logarithms of θ and s a priori
RANGE = (-12.0, 0.5), (-6.0, 5.0)


def most_likely(
    chi: Float[Tensor, "m d"], noise: Float[Tensor, " m"], u: Float[Tensor, " m"], start: Process
) -> Process:
    """The mode of log θ and log s, normal about `start`, given u; the process' variance is integrated out.

    A few steps of L-BFGS: half the log likelihood's derivative in a parameter of K is tr(A ∂K), A = α αᵀ / σ² − K⁻¹.
    """
    from scipy.optimize import minimize

    d, m = chi.shape[1], len(chi)
    linear, centre = chi @ chi.mT / d, torch.cat([start.theta, start.theta.new_tensor([start.linear])]).log()
    spread = torch.full_like(centre, SPREAD[0])
    spread[-1] = SPREAD[1]

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(point).to(centre)
        values, away = parameters.exp(), (parameters - centre) / spread
        theta, s = values[:d], values[d]
        ratio, slope = sinh_ratio((chi * theta) @ chi.mT, theta.sum())
        gram = ratio + s * linear
        gram.diagonal().add_(noise)
        root, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            return 1e10, np.zeros(d + 1)
        inverse = torch.cholesky_inverse(root)
        alpha = inverse @ u
        variance = u @ alpha / m
        a = torch.outer(alpha, alpha) / variance - inverse
        whole = (a * ratio).sum() / torch.tanh(theta.sum())
        by_theta = (((a * slope) @ chi) * chi).sum(0) - whole
        gradient = -values * torch.cat([by_theta, (a * linear).sum()[None]]) / 2 + away / spread
        loss = m / 2 * variance.log() + root.diagonal().log().sum() + away.square().sum() / 2
        return float(loss), gradient.cpu().numpy()

    bounds = [RANGE[0]] * d + [RANGE[1]]
    found = minimize(
        objective, centre.cpu().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS}
    )
    values = torch.from_numpy(np.exp(found.x)).to(chi)
    return Process(values[:d], float(values[d]))
