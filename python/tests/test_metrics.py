"""Measures against definitions in NumPy; batches change nothing."""

import numpy as np
import pytest

import alitok
from alitok import metrics

RANDOM = np.random.default_rng(1)


@pytest.fixture(scope="module")
def pictures():
    first = RANDOM.integers(0, 256, (5, 24, 32, 3), np.uint8)
    moved = first.astype(int) + RANDOM.integers(-9, 10, first.shape)
    return first, np.clip(moved, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def features():
    return tuple((RANDOM.normal(size=(60, 6)) + shift).astype(np.float32) for shift in (0, 0.5))


def test_should_measure_noise_in_decibels(pictures):
    first, second = pictures
    error = ((first.astype(float) - second) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(metrics.psnr(first, second), 10 * np.log10(255**2 / error), 1e-12)
    assert np.isinf(metrics.psnr(first, first)).all()
    meter = metrics.PSNR()
    for part in (slice(0, 2), slice(2, 5)):
        meter.update(second[part], first[part])
    assert meter.compute() == pytest.approx(metrics.psnr(first, second).mean(), rel=1e-12)


def test_should_measure_structure(pictures):
    first, second = pictures
    # One window of the definition, by hand.
    x, y = (part[0, :11, :11, 0].astype(float) for part in pictures)
    line = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(line, line) / line.sum() ** 2
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * x * x).sum() - mean_x**2, (window * y * y).sum() - mean_y**2
    cov = (window * x * y).sum() - mean_x * mean_y
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    expected /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    corner = tuple(np.repeat(part[:1, :11, :11, :1], 3, 3) for part in pictures)
    assert metrics.ssim(*corner)[0] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(metrics.ssim(first, first), 1)
    meter = metrics.SSIM()
    meter.update(second, first)
    assert meter.compute() == pytest.approx(metrics.ssim(first, second).mean())
    with pytest.raises(alitok.InputError, match="11 x 11"):
        metrics.ssim(first[:, :8], second[:, :8])
    with pytest.raises(alitok.InputError):
        metrics.ssim(first, second[:3])


def frechet(first, second):
    from_first, from_second = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    roots = np.linalg.eigvals(from_first @ from_second)
    distance = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return distance + np.trace(from_first + from_second) - 2 * np.sqrt(roots.real.clip(0)).sum()


def test_should_give_the_frechet_distance(features, tmp_path):
    first, second = (part.astype(float) for part in features)
    expected = frechet(first, second)
    assert metrics.frechet_distance(*features) == pytest.approx(expected, rel=1e-6)
    statistics = [
        metrics.Statistics(part.mean(0), np.cov(part, rowvar=False)) for part in (first, second)
    ]
    assert metrics.frechet_distance(*statistics) == pytest.approx(expected, rel=1e-9)
    np.savez(tmp_path / "first.npz", mu=statistics[0].mu, sigma=statistics[0].sigma)
    read = metrics.Statistics.read(tmp_path / "first.npz")
    np.testing.assert_array_equal(read.sigma, statistics[0].sigma)
    path = tmp_path / "first.npz"
    assert metrics.frechet_distance(path, statistics[1]) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(alitok.FileError, match="mu_s"):
        metrics.Statistics.read(path, spatial=True)
    with pytest.raises(alitok.InputError):
        metrics.frechet_distance(statistics[0], features[0][:, :4])


def test_should_not_depend_on_how_a_set_is_cut(features):
    whole = metrics.Statistics.of(features[0])
    meter = metrics.FrechetDistance()
    for size in (1, 7, 20, 32):
        meter.update(features[0][:size], real=True)
        meter.update(features[1][:size])
        features = tuple(part[size:] for part in features)
    statistics = meter._sets[True].statistics()
    np.testing.assert_array_equal(statistics.mu, whole.mu)
    np.testing.assert_array_equal(statistics.sigma, whole.sigma)
    assert statistics.count == whole.count == 60 and meter.compute() > 0
    meter.reset()
    with pytest.raises(alitok.InputError, match="at least 2"):
        meter.compute()


def test_should_take_a_reference_for_real_pictures(features):
    meter = metrics.FrechetDistance()
    meter.set_reference(features[0])
    meter.update(features[1])
    assert meter.compute() == metrics.frechet_distance(features[1], features[0])


def test_should_give_the_inception_score():
    logits = RANDOM.normal(size=(40, 5)).astype(np.float32)
    chances = np.exp(logits.astype(float))
    chances /= chances.sum(1, keepdims=True)
    scores = []
    for part in np.split(chances, 2):
        scores.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    found = metrics.inception_score(logits, split_size=20)
    assert found.mean == pytest.approx(np.mean(scores)) and found.deviation == pytest.approx(np.std(scores))
    meter = metrics.InceptionScore(split_size=20)
    meter.update(logits[:11])
    meter.update(logits[11:])
    assert meter.compute() == found
    assert metrics.inception_score(logits, splits=10).mean > 1
    with pytest.raises(alitok.InputError, match="not both"):
        metrics.inception_score(logits, splits=10, split_size=4)


def test_should_give_precision_and_recall(features):
    reference, samples = features

    def radii(rows):
        return np.sort(np.linalg.norm(rows[:, None] - rows[None], axis=2), 1)[:, 3]

    def within(rows, others):
        return (np.linalg.norm(rows[:, None] - others[None], axis=2) <= radii(others)).any(1).mean()

    expected = within(samples, reference), within(reference, samples)
    assert metrics.precision_recall(reference, samples) == pytest.approx(expected)
    meter = metrics.PrecisionRecall()
    meter.update(reference, real=True)
    meter.update(samples)
    assert meter.compute() == pytest.approx(expected)


def test_should_give_the_kernel_distance(features):
    found = metrics.kernel_distance(*features, subsets=50, size=60)
    first, second = (part.astype(float) for part in features)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_others(a):
        whole = kernel(a, a)
        return (whole.sum() - np.trace(whole)) / (len(a) * (len(a) - 1))

    expected = mean_of_others(first) + mean_of_others(second) - 2 * kernel(first, second).mean()
    assert found.mean == pytest.approx(expected, rel=1e-4)
    meter = metrics.KernelDistance(subsets=50, size=60)
    meter.update(features[0])
    meter.update(features[1], real=True)
    assert meter.compute() == found


def test_should_refuse_what_is_no_number(features):
    broken = features[0].copy()
    broken[3, 2] = np.nan
    for call in (
        lambda: metrics.frechet_distance(broken, features[1]),
        lambda: metrics.inception_score(broken),
        lambda: metrics.precision_recall(broken, features[1]),
    ):
        with pytest.raises(ValueError, match="finite"):
            call()
    with pytest.raises(ValueError, match="finite"):
        metrics.frechet_distance(
            metrics.Statistics(np.full(3, np.inf), np.eye(3)), np.eye(4, 3)
        )


@pytest.mark.skipif(alitok._alitok.NETWORKS, reason="this build has networks")
def test_should_say_that_there_are_no_networks():
    with pytest.raises(alitok.UnavailableError, match="feature"):
        metrics.Extractor("lite")
    with pytest.raises(alitok.UnavailableError, match="feature"):
        metrics.LPIPS()


@pytest.mark.skipif(not alitok._alitok.NETWORKS, reason="this build has no networks")
class TestNetworks:
    def test_should_see_pictures_in_any_batch_alike(self, model, images, tmp_path):
        extractor = metrics.Extractor("lite")
        found = extractor.features(images)
        assert found.pool.shape[0] == 4 and found.spatial is None and found.logits is None
        np.testing.assert_array_equal(extractor.features(images[2]).pool[0], found.pool[2])
        np.savez(tmp_path / "a.npz", arr_0=np.moveaxis(images, 1, -1))
        np.testing.assert_array_equal(extractor.features(tmp_path / "a.npz").pool, found.pool)
        for index, image in enumerate(images):
            (tmp_path / f"{index}.png").write_bytes(alitok.data.encode_png(image))
        np.testing.assert_array_equal(extractor.features(tmp_path).pool, found.pool)

    def test_should_compare_sets_as_the_command_line_does(self, tmp_path):
        extractor = metrics.Extractor("lite")
        heldout = alitok.data.open("bundled:heldout")
        first = [sample.image for sample in heldout][:60]
        second = [sample.image for sample in heldout][60:120]
        distance = metrics.fid(first, second, extractor=extractor)
        assert distance == pytest.approx(
            metrics.frechet_distance(
                extractor.features(first).pool, extractor.features(second).pool
            )
        )
        assert metrics.fid(first, first, extractor=extractor) < 1e-3 < distance

    def test_should_say_how_to_get_weights(self, monkeypatch, tmp_path):
        with pytest.raises(alitok.AlitokError, match="inception"):
            metrics.Extractor("vgg")
        with pytest.raises(alitok.FileError):
            metrics.Extractor("inception", tmp_path / "nothing.pth")

