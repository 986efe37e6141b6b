"""Measures of pictures and of sets of pictures, by the field's protocols.

Each comes as a function and as a class with ``update()`` and ``compute()``, as torchmetrics has them.

============================ ========================================== ==========================
of pairs of pictures         :func:`psnr`, :func:`ssim`                 :class:`PSNR`, :class:`SSIM`, :class:`LPIPS`
of sets, by features         :func:`frechet_distance` (FID, sFID)       :class:`FrechetDistance`
..                           :func:`kernel_distance` (KID)              :class:`KernelDistance`
..                           :func:`inception_score` (IS)               :class:`InceptionScore`
..                           :func:`precision_recall`                   :class:`PrecisionRecall`
============================ ========================================== ==========================

Features are what a network sees in pictures: :class:`Extractor` is one. Of Inception's the distances are FID,
sFID and KID; of the bundled network's they have no such name and compare with nothing but each other. Without
an extractor, the classes take features of your own: float ``[n, width]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from alitok import _alitok
from alitok._arrays import Images, Layout, as_array, count, pictures_of, rows_of, sources
from alitok._model import PACKAGE
from alitok.data import DataSet, center_crop
from alitok.errors import FileError, InputError

__all__ = [
    "LPIPS",
    "PSNR",
    "SSIM",
    "Extractor",
    "Features",
    "FrechetDistance",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "Score",
    "Statistics",
    "fid",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "precision_recall",
    "psnr",
    "ssim",
]

Floats: TypeAlias = "npt.NDArray[np.float64]"

_BATCH = 64


@dataclass(frozen=True)
class Score:
    """A mean over parts or subsets of a set.

    Attributes:
        mean: The mean.
        deviation: The population's standard deviation over the parts.
    """

    mean: float
    deviation: float


def _pairs(
    reference: Images, images: Images, layout: Layout | None
) -> tuple[bytes, bytes, tuple[int, int, int]]:
    both = []
    for pictures in (reference, images):
        given = sources(pictures, layout)
        arrays = [
            np.asarray(_alitok.read(one))
            if isinstance(one, str)
            else np.frombuffer(one[0], np.uint8).reshape(one[1], one[2], 3)
            for one in given
        ]
        if len({array.shape for array in arrays}) > 1:
            raise InputError("pictures that are compared in one call have one size")
        both.append(np.stack(arrays) if arrays else np.zeros((0, 1, 1, 3), np.uint8))
    first, second = both
    if first.shape != second.shape:
        raise InputError(
            f"pictures that are compared have one shape, these have {list(first.shape)} and "
            f"{list(second.shape)} (as [n, height, width, 3])"
        )
    return first.tobytes(), second.tobytes(), first.shape[:3]


def psnr(reference: Images, images: Images, *, layout: Layout | None = None) -> Floats:
    """Give the peak signal-to-noise ratio of each pair of pictures, at 8 bits.

    Args:
        reference: Pictures of any kind that :class:`alitok.Model` takes.
        images: As many, of the same size.
        layout: Where the channels of arrays are.

    Returns:
        Decibels, float64 ``[n]``; infinite for equal pictures.
    """
    return np.asarray(_alitok.psnr(_pairs(reference, images, layout)))


def ssim(reference: Images, images: Images, *, layout: Layout | None = None) -> Floats:
    """Give the structural similarity (Wang et al. 2004) of each pair of pictures, at 8 bits.

    A Gaussian window of 11 pixels and sigma 1.5, each channel by itself: scikit-image's with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255``.

    Args:
        reference: Pictures of any kind that :class:`alitok.Model` takes, of at least 11 x 11 pixels.
        images: As many, of the same size.
        layout: Where the channels of arrays are.

    Returns:
        At most 1, float64 ``[n]``.
    """
    return np.asarray(_alitok.ssim(_pairs(reference, images, layout)))


@dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features.

    Attributes:
        mu: The mean, float64 ``[width]``.
        sigma: The covariance, float64 ``[width, width]``, divided by one less than the count.
        count: How many pictures they are of; 0 where a file does not say.
    """

    mu: Floats
    sigma: Floats
    count: int = 0

    @classmethod
    def of(cls, features: Any) -> Statistics:
        """Compute the statistics of features.

        Args:
            features: Floats ``[n, width]``, at least two rows.
        """
        moments = _Moments()
        moments.add(features)
        return moments.statistics()

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, spatial: bool = False) -> Statistics:
        """Read statistics from an ``.npz`` with ``mu`` and ``sigma``, as the field has them, or from a
        ``.safetensors`` of ``alitok evaluate statistics``.

        Args:
            path: The file.
            spatial: Take those of the spatial features, ``mu_s`` and ``sigma_s``.
        """
        fields = _alitok.read_reference(os.fspath(path))
        mu, sigma = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
        if mu not in fields:
            raise FileError(f"{os.fspath(path)}: there are no statistics ({mu}, {sigma}) in it")
        return cls(np.asarray(fields[mu]), np.asarray(fields[sigma]), int(fields["count"]))

    def _parts(self) -> tuple[bytes, bytes, int]:
        mu, sigma = as_array(self.mu, "mu"), as_array(self.sigma, "sigma")
        if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or len(mu) == 0:
            raise InputError(
                "statistics are mu [width] and sigma [width, width], these are "
                f"{list(mu.shape)} and {list(sigma.shape)}"
            )
        if not all(np.issubdtype(part.dtype, np.floating) for part in (mu, sigma)):
            raise InputError("statistics are floats")
        return mu.astype(np.float64).tobytes(), sigma.astype(np.float64).tobytes(), len(mu)


class _Moments:
    """Statistics of features that come in batches; how they are cut changes no bit."""

    def __init__(self) -> None:
        self._moments: _alitok.Moments | None = None
        self._width = 0
        self.count = 0

    def add(self, features: Any) -> None:
        rows = rows_of(features)
        if self._moments is None:
            self._moments, self._width = _alitok.Moments(rows[1]), rows[1]
        self._moments.add(self.count, rows)
        self.count += len(rows[0]) // (4 * rows[1])

    def statistics(self) -> Statistics:
        if self._moments is None:
            raise InputError("statistics need at least 2 pictures, there are none")
        mu, sigma = self._moments.gaussian()
        return Statistics(np.asarray(mu), np.asarray(sigma), self.count)


Distribution: TypeAlias = Any
"""Statistics, a file of statistics, or features ``[n, width]``."""


def _statistics(of: Distribution) -> Statistics:
    if isinstance(of, Statistics):
        return of
    if isinstance(of, (str, os.PathLike)):
        return Statistics.read(of)
    return Statistics.of(of)


def frechet_distance(
    first: Distribution, second: Distribution, *, threads: int | None = None
) -> float:
    """Give the Fréchet distance of two sets by their features: FID where they are Inception's pooled ones.

    Args:
        first: :class:`Statistics`, the path of a file of them, or features, float ``[n, width]``.
        second: The same of the other set.
        threads: Threads to compute on.

    Returns:
        The distance, at least 0.
    """
    return _alitok.frechet_distance(
        _statistics(first)._parts(), _statistics(second)._parts(), _threads(threads)
    )


def kernel_distance(
    first: Any, second: Any, *, subsets: int = 100, size: int = 1000, threads: int | None = None
) -> Score:
    """Give the kernel distance of two sets: KID as torch-fidelity has it, of Inception's pooled features.

    Args:
        first: Features, float ``[n, width]``, at least ``size`` rows.
        second: The same of the other set.
        subsets: Number of subsets that are compared.
        size: Rows of a subset.
        threads: Threads to compute on.
    """
    subsets, size = count(subsets, "subsets", most=10**6), count(size, "size", least=2)
    pair = rows_of(first), rows_of(second)
    return Score(*_alitok.kernel_distance(*pair, subsets, size, _threads(threads)))


def inception_score(
    logits: Any, *, splits: int | None = None, split_size: int | None = None
) -> Score:
    """Give the Inception Score.

    Args:
        logits: Inception's without bias, float ``[n, 1008]``.
        splits: So many parts of shuffled rows: torch-fidelity with 10.
        split_size: Parts of so many rows in their order: guided-diffusion's evaluator with 5000, which is
            the default.
    """
    if splits is not None and split_size is not None:
        raise InputError("give splits or split_size, not both")
    consecutive = None if split_size is None else count(split_size, "split_size")
    shuffled = None if splits is None else count(splits, "splits")
    return Score(*_alitok.inception_score(rows_of(logits, "logits"), consecutive, shuffled))


def precision_recall(
    reference: Any, samples: Any, *, neighbours: int = 3, threads: int | None = None
) -> tuple[float, float]:
    """Give improved precision and recall (Kynkäänniemi et al. 2019).

    Args:
        reference: Features of the reference, float ``[n, width]``.
        samples: Features of the samples.
        neighbours: The manifolds reach to this neighbour; the field takes 3.
        threads: Threads to compute on.

    Returns:
        Precision (the fraction of samples that lie within the reference) and recall (the reverse).
    """
    neighbours = count(neighbours, "neighbours")
    pair = rows_of(reference, "reference"), rows_of(samples, "samples")
    return _alitok.precision_recall(*pair, neighbours, _threads(threads))


def _threads(threads: int | None) -> int | None:
    return None if threads is None else count(threads, "threads", most=2**16)


@dataclass(frozen=True)
class Features:
    """What a network sees in pictures, a row each.

    Attributes:
        pool: Pooled features, float32 ``[n, width]``; Inception's have 2048.
        spatial: Features that keep places, for sFID, where the network has them.
        logits: Logits of classes, for the Inception Score, where the network has them.
    """

    pool: npt.NDArray[np.float32]
    spatial: npt.NDArray[np.float32] | None
    logits: npt.NDArray[np.float32] | None


class Extractor:
    """A network that turns pictures into features.

    The released wheels have them; a build without says so.
    """

    def __init__(
        self,
        name: str = "inception",
        weights: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        """Load a network.

        Args:
            name: ``"inception"``, by which FID is defined, or ``"lite"``, which comes with the package.
            weights: The file of its weights (``pt_inception-2015-12-05-6726825d.pth``); those that ``alitok
                weights fetch inception`` left if left out.
            threads: Threads to compute on.

        Raises:
            UnavailableError: If this build has no networks.
            FileError: If the weights are missing or damaged.
        """
        full = name if weights is None else f"{name}={os.fspath(weights)}"
        self.name = name
        self._network = _alitok.open_network(full, PACKAGE, _threads(threads))

    @property
    def is_inception(self) -> bool:
        """Whether distances of its features are FID, sFID and KID."""
        return self.name == "inception"

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        return str(self._network.digest())

    def features(self, images: Any, *, layout: Layout | None = None, size: int | None = None) -> Features:
        """Show pictures to the network.

        Args:
            images: Pictures of any kind that :class:`alitok.Model` takes; or a data set, its source, a folder
                or an ``.npz`` (``arr_0``).
            layout: Where the channels of arrays are.
            size: Crop pictures to the centre at this size first.
        """
        found: list[Features] = []
        _each_batch(images, layout, size, lambda batch: found.append(self._features(batch)))
        if not found:
            raise InputError("there are no pictures")

        def joined(parts: list[Any]) -> Any:
            return None if parts[0] is None else np.concatenate(parts)

        return Features(*(joined([getattr(one, kind) for one in found]) for kind in _KINDS))

    def _features(self, pictures: npt.NDArray[np.uint8]) -> Features:
        shape = pictures.shape[:3]
        pool, spatial, logits = self._network.features(pictures.tobytes(), shape)
        rest = (None if one is None else np.asarray(one) for one in (spatial, logits))
        return Features(np.asarray(pool), *rest)


_KINDS = ("pool", "spatial", "logits")


def _each_batch(
    images: Any,
    layout: Layout | None,
    size: int | None,
    take: Callable[[npt.NDArray[np.uint8]], object],
) -> None:
    """Hand over pictures ``[n, height, width, 3]`` of one size, some at a time."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        if path.suffix.lower() == ".npz":
            # One batch of the file is in memory at a time.
            _alitok.read_pictures(
                os.fspath(images),
                _BATCH,
                lambda batch: take(
                    np.asarray(batch)
                    if size is None
                    else center_crop(np.asarray(batch), size, layout="NHWC")
                ),
            )
            return
        if not path.is_file():
            images = DataSet(images)
    for batch in _batches(images, layout, size):
        take(batch)


def _batches(
    images: Any, layout: Layout | None, size: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures of what is no file of a whole set."""
    if isinstance(images, DataSet):
        pictures: Iterator[Any] = (sample.image for sample in images)
    elif isinstance(images, np.ndarray) or hasattr(images, "__dlpack__"):
        pictures = iter(pictures_of(as_array(images, "pictures"), layout))
    else:
        pictures = (
            np.asarray(_alitok.read(one))
            if isinstance(one, str)
            else np.frombuffer(one[0], np.uint8).reshape(one[1], one[2], 3)
            for one in sources(images, layout)
        )
    waiting: list[npt.NDArray[np.uint8]] = []
    for picture in pictures:
        if size is not None and picture.shape[:2] != (size, size):
            picture = center_crop(picture, size, layout="NHWC")[0]
        if waiting and waiting[0].shape != picture.shape:
            raise InputError(
                f"pictures of a set have one size, these have {waiting[0].shape[:2]} and "
                f"{picture.shape[:2]}; crop them with size=…"
            )
        waiting.append(picture)
        if len(waiting) == _BATCH:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def fid(
    images: Any,
    reference: Any,
    *,
    extractor: Extractor | None = None,
    size: int | None = None,
    layout: Layout | None = None,
) -> float:
    """Give the Fréchet Inception Distance of pictures from a reference.

    Args:
        images: Pictures, a folder, a data set, or an ``.npz`` with ``arr_0``.
        reference: The same, or a file of statistics; those of an ``.npz`` go before its pictures.
        extractor: The network; Inception if left out. Of another it is no FID.
        size: Crop pictures to the centre at this size first.
        layout: Where the channels of arrays are.
    """
    metric = FrechetDistance(extractor or Extractor(), layout=layout)
    statistics = None
    if isinstance(reference, Statistics):
        statistics = reference
    elif isinstance(reference, (str, os.PathLike)):
        ending = Path(reference).suffix.lower()
        if ending == ".safetensors":
            statistics = Statistics.read(reference)
        elif ending == ".npz" and metric.extractor is not None and metric.extractor.is_inception:
            if "mu" in _alitok.read_reference(os.fspath(reference)):
                statistics = Statistics.read(reference)
    if statistics is not None:
        metric.set_reference(statistics)
    else:
        metric.update_all(reference, real=True, size=size)
    metric.update_all(images, real=False, size=size)
    return metric.compute()


class _OfSets:
    """What the measures of sets share: features of real pictures and of others."""

    _kind = "pool"

    def __init__(
        self, extractor: Extractor | None = None, *, layout: Layout | None = None
    ) -> None:
        self.extractor = extractor
        self._layout: Layout | None = layout
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        raise NotImplementedError

    def _take(self, features: Any, real: bool) -> None:
        raise NotImplementedError

    def update(self, images: Any, *, real: bool = False) -> None:
        """Take in a batch.

        Args:
            images: Pictures of one size; without an extractor, features ``[n, width]``.
            real: Whether they are of the reference.
        """
        if self.extractor is None:
            self._take(images, real)
        else:
            self.update_all(images, real=real)

    def update_all(self, images: Any, *, real: bool = False, size: int | None = None) -> None:
        """Take in a whole set: an array, a folder, a data set, or an ``.npz``.

        Args:
            images: The set.
            real: Whether it is the reference.
            size: Crop pictures to the centre at this size first.
        """
        if self.extractor is None:
            raise InputError("without an extractor features are taken in, by update()")
        extractor = self.extractor

        def take(batch: npt.NDArray[np.uint8]) -> None:
            found = getattr(extractor._features(batch), self._kind)
            if found is None:
                raise InputError(f"the network {extractor.name} has no {self._kind} features")
            self._take(found, real)

        _each_batch(images, self._layout, size, take)


class FrechetDistance(_OfSets):
    """FID (or sFID) from batches of pictures or features; memory does not grow with them.

    Example:
        >>> metric = alitok.metrics.FrechetDistance()           # doctest: +SKIP
        >>> metric.update(real_features, real=True)             # doctest: +SKIP
        >>> metric.update(features)                             # doctest: +SKIP
        >>> metric.compute()                                    # doctest: +SKIP
    """

    def __init__(
        self,
        extractor: Extractor | None = None,
        *,
        spatial: bool = False,
        layout: Layout | None = None,
    ) -> None:
        """Begin.

        Args:
            extractor: The network that sees pictures; features are given if left out.
            spatial: Compare spatial features: sFID.
            layout: Where the channels of arrays are.
        """
        self._kind = "spatial" if spatial else "pool"
        super().__init__(extractor, layout=layout)

    def reset(self) -> None:
        """Forget everything."""
        self._sets = {True: _Moments(), False: _Moments()}
        self._reference: Statistics | None = None

    def set_reference(self, reference: Distribution) -> None:
        """Take statistics for the reference, or those of a file or of features.

        Args:
            reference: What :func:`frechet_distance` takes.
        """
        if self._kind == "spatial" and isinstance(reference, (str, os.PathLike)):
            reference = Statistics.read(reference, spatial=True)
        self._reference = _statistics(reference)

    def _take(self, features: Any, real: bool) -> None:
        self._sets[bool(real)].add(features)

    def compute(self) -> float:
        """Give the distance of what came in so far."""
        reference = self._reference or self._sets[True].statistics()
        return frechet_distance(self._sets[False].statistics(), reference)


class _OfRows(_OfSets):
    """Measures that need every row."""

    def reset(self) -> None:
        """Forget everything."""
        self._rows: dict[bool, list[npt.NDArray[np.float32]]] = {True: [], False: []}

    def _take(self, features: Any, real: bool) -> None:
        values, width = rows_of(features)
        self._rows[bool(real)].append(np.frombuffer(values, np.float32).reshape(-1, width))

    def _all(self, real: bool) -> npt.NDArray[np.float32]:
        rows = self._rows[real]
        if not rows:
            raise InputError(f"there are no {'real ' if real else ''}pictures yet")
        if len({part.shape[1] for part in rows}) > 1:
            raise InputError("features of one set have one width")
        return np.concatenate(rows)


class KernelDistance(_OfRows):
    """KID from batches of pictures or features."""

    def __init__(
        self,
        extractor: Extractor | None = None,
        *,
        subsets: int = 100,
        size: int = 1000,
        layout: Layout | None = None,
    ) -> None:
        """Begin.

        Args:
            extractor: The network that sees pictures; features are given if left out.
            subsets: Number of subsets that are compared.
            size: Rows of a subset.
            layout: Where the channels of arrays are.
        """
        self._subsets, self._size = subsets, size
        super().__init__(extractor, layout=layout)

    def compute(self) -> Score:
        """Give the distance of what came in so far."""
        return kernel_distance(
            self._all(False), self._all(True), subsets=self._subsets, size=self._size
        )


class InceptionScore(_OfRows):
    """The Inception Score from batches of pictures or logits."""

    _kind = "logits"

    def __init__(
        self,
        extractor: Extractor | None = None,
        *,
        splits: int | None = None,
        split_size: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Begin.

        Args:
            extractor: The network that sees pictures; logits are given if left out.
            splits: See :func:`inception_score`.
            split_size: See :func:`inception_score`.
            layout: Where the channels of arrays are.
        """
        self._splits, self._split_size = splits, split_size
        super().__init__(extractor, layout=layout)

    def compute(self) -> Score:
        """Give the score of what came in so far."""
        return inception_score(
            self._all(False), splits=self._splits, split_size=self._split_size
        )


class PrecisionRecall(_OfRows):
    """Improved precision and recall from batches of pictures or features."""

    def __init__(
        self,
        extractor: Extractor | None = None,
        *,
        neighbours: int = 3,
        layout: Layout | None = None,
    ) -> None:
        """Begin.

        Args:
            extractor: The network that sees pictures; features are given if left out.
            neighbours: The manifolds reach to this neighbour.
            layout: Where the channels of arrays are.
        """
        self._neighbours = neighbours
        super().__init__(extractor, layout=layout)

    def compute(self) -> tuple[float, float]:
        """Give precision and recall of what came in so far."""
        return precision_recall(
            self._all(True), self._all(False), neighbours=self._neighbours
        )


class _OfPairs:
    """What the measures of pairs share: a running mean."""

    def __init__(self, *, layout: Layout | None = None) -> None:
        """Begin.

        Args:
            layout: Where the channels of arrays are.
        """
        self._layout: Layout | None = layout
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._values: list[Floats] = []

    def _measure(self, images: Images, reference: Images) -> Floats:
        raise NotImplementedError

    def update(self, images: Images, reference: Images) -> None:
        """Take in a batch of pairs.

        Args:
            images: Pictures.
            reference: As many, of the same size.
        """
        self._values.append(self._measure(images, reference))

    def compute(self) -> float:
        """Give the mean over the pairs so far."""
        values = np.concatenate([np.zeros(0), *self._values])
        if not len(values):
            raise InputError("there are no pictures yet")
        return float(values.mean())


class PSNR(_OfPairs):
    """The mean of :func:`psnr` over batches of pairs."""

    def _measure(self, images: Images, reference: Images) -> Floats:
        return psnr(reference, images, layout=self._layout)


class SSIM(_OfPairs):
    """The mean of :func:`ssim` over batches of pairs."""

    def _measure(self, images: Images, reference: Images) -> Floats:
        return ssim(reference, images, layout=self._layout)


class LPIPS(_OfPairs):
    """LPIPS 0.1 (Zhang et al. 2018) over batches of pairs; smaller is nearer."""

    def __init__(
        self,
        network: str = "vgg",
        weights: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        *,
        layout: Layout | None = None,
    ) -> None:
        """Load a network.

        Args:
            network: ``"vgg"`` or ``"alex"``.
            weights: The files of the network and of LPIPS' channels; the fetched ones if left out.
            layout: Where the channels of arrays are.

        Raises:
            UnavailableError: If this build has no networks.
            FileError: If the weights are missing or damaged.
        """
        full = network
        if weights is not None:
            full += "=" + ",".join(os.fspath(path) for path in weights)
        self._network = _alitok.open_lpips(full)
        super().__init__(layout=layout)

    def _measure(self, images: Images, reference: Images) -> Floats:
        return np.asarray(self._network.distances(_pairs(reference, images, self._layout)))
