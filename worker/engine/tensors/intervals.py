"""95 % confidence intervals of what was measured on a sample: of a proportion, and of a mean."""

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); `n` is at least 1."""
    share = successes / n
    denominator = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / denominator
    half = Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / denominator
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap_mean(values: NDArray[np.floating], seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values`, shape [N]; needs no normality (Efron 1979)."""
    return bootstrap_ratio(values, np.ones_like(values), seed, resamples)


def bootstrap_ratio(
    numerators: NDArray[np.floating], denominators: NDArray[np.floating], seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """The same for the ratio of two sums over samples, or the mean of such ratios over trailing columns [N, C].

    A column whose denominator is 0 in a resample is left out of that resample's mean.
    """
    generator = np.random.default_rng(seed)
    columns, weights = np.atleast_2d(numerators.T).T, np.atleast_2d(denominators.T).T
    n = len(columns)
    ratios = np.empty(resamples)
    for index in range(resamples):
        # Multinomial counts stand for drawing n samples with replacement, at the cost of one dot product.
        counts = np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)
        ratios[index] = mean_ratio(counts @ columns, counts @ weights)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def mean_ratio(numerator: NDArray[np.floating], denominator: NDArray[np.floating]) -> float:
    """Mean of the column ratios, columns with denominator 0 left out; 0 when none is left."""
    used = denominator > 0
    return float(np.mean(numerator[used] / denominator[used])) if used.any() else 0.0
