"""Token caches as data sets of PyTorch, which is imported only when one is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alitok._arrays import count as whole_number
from alitok._cache import TokenCache
from alitok.errors import InputError, OutOfRangeError

if TYPE_CHECKING:
    import torch

__all__ = ["Samples", "TokenCacheDataset", "collate"]


class Samples(Sequence[Any]):
    """A batch that was read at once. It is a sequence of samples, for other collate functions."""

    def __init__(self, tokens: torch.Tensor, labels: torch.Tensor, label_first: bool) -> None:
        """Hold tokens ``[n, length]`` and labels ``[n]``."""
        self.tokens = tokens
        self.labels = labels
        self.label_first = label_first

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Samples(self.tokens[index], self.labels[index], self.label_first)
        tokens, label = self.tokens[index], self.labels[index]
        return (label, tokens) if self.label_first else (tokens, label)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def collate(batch: Sequence[Any]) -> Any:
    """Collate a batch without copying it: ``DataLoader(…, collate_fn=alitok.torch.collate)``.

    Args:
        batch: What :meth:`TokenCacheDataset.__getitems__` read, or a list of samples.

    Returns:
        Tokens int64 ``[n, length]`` and labels int64 ``[n]``; of a data set with ``label_first``, in the
        other order.
    """
    if isinstance(batch, Samples):
        if batch.label_first:
            return batch.labels, batch.tokens
        return batch.tokens, batch.labels
    from torch.utils.data import default_collate

    return default_collate(list(batch))


class TokenCacheDataset:
    """A token cache as a map-style data set of PyTorch: tokens and label by number.

    It is picklable and works with the workers of a ``DataLoader``, forked or spawned, and with
    ``DistributedSampler``. ``DataLoader`` reads whole batches at once through :meth:`__getitems__`;
    with ``collate_fn=alitok.torch.collate`` they are not copied again.

    A picture that was left out when the cache was built gives its place to the next one that has tokens,
    as long as ``left_out="replace"``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | TokenCache,
        *,
        views: Literal["random", "all"] | int = "random",
        seed: int = 0,
        label_first: bool = False,
        left_out: Literal["replace", "raise"] = "replace",
    ) -> None:
        """Open a cache.

        Args:
            path: The folder of the cache, or the cache.
            views: ``"random"``: a sample is a picture, in one view an epoch, which seed, epoch and picture
                decide; call :meth:`set_epoch` before each. ``"all"``: every view is a sample, those of a
                picture one behind the other. A number: that view of each picture.
            seed: Decides the views.
            label_first: Give label and tokens, as the reader of 1d-tokenizer (RAR) does, in place of tokens and
                label.
            left_out: What becomes of a picture without tokens.
        """
        self.cache = path if isinstance(path, TokenCache) else TokenCache(path)
        if isinstance(views, str) and views not in ("random", "all"):
            raise InputError(f"views is 'random', 'all' or a number, not {views!r}")
        if not isinstance(views, str):
            views = whole_number(views, "a view", least=0, most=self.cache.views - 1)
        if left_out not in ("replace", "raise"):
            raise InputError(f"left_out is 'replace' or 'raise', not {left_out!r}")
        self.views: Literal["random", "all"] | int = views
        self.seed = whole_number(seed, "seed", least=0, most=2**64 - 1)
        self.label_first = bool(label_first)
        self.left_out = left_out
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.cache) * (self.cache.views if self.views == "all" else 1)

    def __repr__(self) -> str:
        return f"<alitok.torch.TokenCacheDataset {self.cache.path!r}: {len(self)} samples>"

    def set_epoch(self, epoch: int) -> None:
        """Choose the views of an epoch. Workers that persist keep the epoch that they began with.

        Args:
            epoch: Its number, from 0.
        """
        self.epoch = whole_number(epoch, "epoch", least=0, most=2**63)

    def _read(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        length = len(self)
        places = [int(index) for index in indices]
        if places and not (-length <= min(places) and max(places) < length):
            raise OutOfRangeError(f"there is no such sample: there are {length}")
        places = [place + length if place < 0 else place for place in places]
        if self.views == "all":
            each = self.cache.views
            views = [place % each for place in places]
            places = [place // each for place in places]
        elif self.views == "random":
            views = self.cache._cache.random_views(places, self.seed, self.epoch)
        else:
            views = [int(self.views)] * len(places)
        replace = self.left_out == "replace"
        tokens, labels = self.cache._cache.records(places, views, replace)
        return torch.from_numpy(np.asarray(tokens)), torch.from_numpy(np.asarray(labels))

    def __getitem__(self, index: int) -> Any:
        tokens, labels = self._read([index])
        return Samples(tokens, labels, self.label_first)[0]

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        """Read a batch at once.

        Args:
            indices: The numbers of its samples.
        """
        return Samples(*self._read(indices), self.label_first)
