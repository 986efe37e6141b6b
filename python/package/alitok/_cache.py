"""Token caches."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from alitok import _alitok
from alitok._arrays import as_array, count as whole_number, integers, place as position
from alitok._model import Model, Progress
from alitok.data import DataSet, Views
from alitok.errors import InputError, OutOfRangeError

__all__ = ["TokenCache"]


class TokenCache:
    """The tokens of a whole data set, on disk and mapped into memory.

    ``alitok cache build`` or :meth:`build` makes one. It is read as an array ``[pictures, views, length]``:

    >>> cache = alitok.TokenCache("cache")                # doctest: +SKIP
    >>> cache[0]                # picture 0, uint16 [views, length]     # doctest: +SKIP
    >>> cache[10:20, 0]         # the first view of ten, [10, length]   # doctest: +SKIP

    Nothing is read before it is asked for, and every record is checked when it is read. A cache is pickled
    as its path and may be used after a fork.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a cache.

        Args:
            path: Its folder, with all of its shards.

        Raises:
            FileError: If a shard is missing, unfinished, damaged or of another cache.
        """
        self.path = os.fspath(path)
        self._cache = _alitok.TokenCache(self.path)
        self._header = self._cache.header()

    def __reduce__(self) -> tuple[type[TokenCache], tuple[str]]:
        return TokenCache, (self.path,)

    def __repr__(self) -> str:
        return (
            f"<alitok.TokenCache {self.path!r}: {len(self)} pictures, {self.views} views of "
            f"{self.length} tokens>"
        )

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def views(self) -> int:
        """Views of each picture."""
        views: int = self._header["views"]
        return views

    @property
    def length(self) -> int:
        """Tokens of a view."""
        prefix, rows, columns = self.token_layout
        return prefix + rows * columns

    @property
    def token_layout(self) -> tuple[int, int, int]:
        """Prefix tokens, and rows and columns of the grid."""
        layout: tuple[int, int, int] = self._header["layout"]
        return layout

    @property
    def codes(self) -> int:
        """Size of the codebook; every token is smaller."""
        codes: int = self._header["codes"]
        return codes

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return list(self._header["classes"])

    @property
    def augmentation(self) -> str:
        """How the views were made, in words."""
        text: str = self._header["augmentation"]
        return text

    @property
    def tokenizer(self) -> str:
        """SHA-256 over the encoding part of the tokenizer that made the tokens."""
        digest: str = self._header["tokenizer"]
        return digest

    @property
    def shape(self) -> tuple[int, int, int]:
        """Pictures, views and tokens of a view."""
        return len(self), self.views, self.length

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each picture, int64 ``[pictures]``; reads a record of each."""
        return np.asarray(self._cache.labels())

    @property
    def names(self) -> list[str]:
        """What the pictures are called in their data set."""
        return self._cache.names()

    def captions(self, picture: int) -> list[str]:
        """Give the captions of a picture; none in a cache without captions.

        Args:
            picture: Its number.
        """
        return self._cache.captions(position(picture, len(self), "picture"))

    @property
    def left_out(self) -> dict[int, str]:
        """Pictures that could not be read when the cache was built, and why; reads a record of each."""
        return dict(self._cache.left_out())

    def verify(self) -> list[str]:
        """Read everything once; give the damages that were found, nothing if all is well."""
        return self._cache.verify()

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint16]:
        """Tokens as an array ``[pictures, views, length]`` would give them, uint16.

        Raises:
            FileError: If a picture that is asked for was left out, or is damaged.
        """
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first = slice(None)
        if isinstance(first, slice):
            places = list(range(*first.indices(len(self))))
            tokens = np.asarray(self._cache.tokens(places))
        elif hasattr(first, "__index__") and not isinstance(first, np.ndarray):
            place = position(first, len(self), "picture")
            tokens = np.asarray(self._cache.tokens([place]))[0]
            return chosen_of(tokens, tuple(rest)) if rest else tokens
        else:
            array = as_array(first, "pictures")
            if array.dtype == np.bool_ and array.shape == (len(self),):
                array = np.flatnonzero(array)
            if array.ndim != 1:
                raise InputError("pictures are a number, a slice, or a list of numbers")
            if array.size == 0:
                array = array.astype(np.int64)
            chosen = integers(array, "pictures").tolist()
            places = [position(index, len(self), "picture") for index in chosen]
            tokens = np.asarray(self._cache.tokens(places))
        return chosen_of(tokens, (slice(None),) + tuple(rest)) if rest else tokens

    @classmethod
    def build(
        cls,
        data: DataSet | str | os.PathLike[str],
        model: Model,
        path: str | os.PathLike[str],
        *,
        views: Views = "center",
        shard: tuple[int, int] = (0, 1),
        progress: Progress | None = None,
    ) -> TokenCache:
        """Encode a data set, or go on where an earlier call was interrupted.

        The bytes are those of ``alitok cache build``.

        Args:
            data: The data set, or its source.
            model: The model whose tokenizer encodes.
            path: The folder of the cache, which is made.
            views: ``"center"``, ``"mirrored"`` or ``"ten_crop"``.
            shard: Which part of the work to do: i of n, i counted from 0.
            progress: Called with the pictures done and their number.

        Returns:
            The cache, if all of its shards are there.

        Raises:
            FileError: If the folder holds something else, or other shards are still to be built.
        """
        source = data if isinstance(data, DataSet) else DataSet(data)
        part = whole_number(shard[0], "shard", least=0), whole_number(shard[1], "shards")
        _alitok.build_cache(source._data, model._model, os.fspath(path), views, part, progress)
        return cls(path)


def chosen_of(tokens: npt.NDArray[np.uint16], key: tuple[Any, ...]) -> npt.NDArray[np.uint16]:
    """What a key that may hold anything chooses."""
    try:
        return np.asarray(tokens[key])
    except IndexError as error:
        raise OutOfRangeError(str(error)) from error
