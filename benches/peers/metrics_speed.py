"""How long peers take for what crates/metrics/benches measure.

    python benches/peers/metrics_speed.py inception   # torch-fidelity's extractor, weights at random
    python benches/peers/metrics_speed.py frechet     # NumPy and SciPy: moments of 50,000 x 2048, and the distance

Needs torch, torch-fidelity, numpy and scipy; no part of the tests. Each line is what was done and the median
of its times in seconds; a first run warms up.
"""

import statistics
import sys
import tempfile
import time

import numpy as np


def median(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def inception():
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from metrics_agreement import random_inception

    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(random_inception(0), file.name)
        network = FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=file.name
        )
    for batch in (8, 64):
        images = torch.randint(0, 256, (batch, 3, 256, 256), dtype=torch.uint8)
        with torch.no_grad():
            seconds = median(lambda: network(images), 3)
        print(f"torch-fidelity, {batch} pictures: {seconds:.3f} s, {batch / seconds:.2f} pictures a second")


def frechet():
    import scipy.linalg

    generator = np.random.default_rng(0)
    rows = generator.random((50_000, 2048), dtype=np.float32)

    def moments():
        return rows.mean(axis=0), np.cov(rows, rowvar=False)

    started = time.perf_counter()
    _, first = moments()
    print(f"numpy mean and cov of 50000 x 2048: {time.perf_counter() - started:.2f} s")
    # More like Inception's: few directions hold most of the variance.
    scale = np.exp(-np.arange(2048) / 300.0)
    turn = np.linalg.qr(generator.standard_normal((2048, 2048)))[0]
    first = (turn * scale) @ turn.T + 1e-3 * first
    second = (turn * scale[::-1]) @ turn.T + 1e-3 * first
    started = time.perf_counter()
    root = scipy.linalg.sqrtm(first.dot(second))
    print(f"scipy sqrtm of 2048 x 2048: {time.perf_counter() - started:.2f} s, trace {root.real.trace():.6f}")


if __name__ == "__main__":
    {"inception": inception, "frechet": frechet}[sys.argv[1]]()
