"""locapprox: an explanation is a regression.

The public surface. A method is a neighbourhood, a loss and a surrogate class; Table 1 is `_methods`, what happens in a
call is `_explain`.
"""

from locapprox._concat import concat
from locapprox._explain import explain, explain_mean
from locapprox._explainer import Explainer, as_explanation
from locapprox._explanation import Explanation
from locapprox._load import load
from locapprox._method import Method
from locapprox._methods import (
    c_lime,
    gradient_x_input,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    paper_methods,
    smoothgrad,
    vanilla_gradients,
)
from locapprox.evaluation.faithfulness import Faithfulness, faithfulness
from locapprox.evaluation.perturbation import PerturbationTest, perturbation_test
from locapprox.evaluation.profile import Profile, profile
from locapprox.evaluation.recommend import recommend
from locapprox.evaluation.recommendation import Recommendation
from locapprox.fit.contract import check_surrogate
from locapprox.fit.loss_contract import check_loss
from locapprox.fit.losses import (
    BaseLoss,
    CrossEntropy,
    GradientMatching,
    Huber,
    Loss,
    OnGradients,
    Quantile,
    SquaredError,
)
from locapprox.fit.result import Fit
from locapprox.fit.stopping import Order, Signs, Tolerance
from locapprox.fit.surrogates import BaseSurrogate, Constrained, Linear, Logistic, Sparse, Surrogate
from locapprox.fit.walsh import Walsh
from locapprox.images.pictures import picture, pictures
from locapprox.images.regions import Blurred, ChannelMean, as_images, patches, per_channel, superpixels
from locapprox.models.hugging_face import ImageClassifier, hugging_face
from locapprox.neighbourhoods.base import BaseNeighbourhood, Neighbourhood
from locapprox.neighbourhoods.baselines import Background
from locapprox.neighbourhoods.contract import check_distribution, check_neighbourhood
from locapprox.neighbourhoods.data import LimeTabular, NearestPoints
from locapprox.neighbourhoods.distributions import (
    BaseDistribution,
    CorrelatedNormal,
    Distribution,
    Normal,
    PointMass,
    Uniform,
)
from locapprox.neighbourhoods.draws import Draw
from locapprox.neighbourhoods.kernels import ExponentialKernel
from locapprox.neighbourhoods.limits import Limit
from locapprox.neighbourhoods.masks import AllCoalitions, FairMasks, LeaveOneOut, ShapleyMasks
from locapprox.neighbourhoods.placements import Additive, Multiplicative
from locapprox.neighbourhoods.quadratures import Fejer, GaussLegendre

__version__ = "0.2.0.dev0"

__all__ = [
    "Additive",
    "AllCoalitions",
    "Background",
    "BaseDistribution",
    "BaseLoss",
    "BaseNeighbourhood",
    "BaseSurrogate",
    "Blurred",
    "ChannelMean",
    "Constrained",
    "CorrelatedNormal",
    "CrossEntropy",
    "Distribution",
    "Draw",
    "Explainer",
    "Explanation",
    "ExponentialKernel",
    "FairMasks",
    "Faithfulness",
    "Fejer",
    "Fit",
    "GaussLegendre",
    "GradientMatching",
    "Huber",
    "ImageClassifier",
    "LeaveOneOut",
    "LimeTabular",
    "Limit",
    "Linear",
    "Logistic",
    "Loss",
    "Method",
    "Multiplicative",
    "NearestPoints",
    "Neighbourhood",
    "Normal",
    "OnGradients",
    "Order",
    "PerturbationTest",
    "PointMass",
    "Profile",
    "Quantile",
    "Recommendation",
    "ShapleyMasks",
    "Signs",
    "Sparse",
    "SquaredError",
    "Surrogate",
    "Tolerance",
    "Uniform",
    "Walsh",
    "as_explanation",
    "as_images",
    "c_lime",
    "check_distribution",
    "check_loss",
    "check_neighbourhood",
    "check_surrogate",
    "concat",
    "explain",
    "explain_mean",
    "faithfulness",
    "gradient_x_input",
    "hugging_face",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "load",
    "occlusion",
    "paper_methods",
    "patches",
    "per_channel",
    "perturbation_test",
    "picture",
    "pictures",
    "profile",
    "recommend",
    "smoothgrad",
    "superpixels",
    "vanilla_gradients",
]
