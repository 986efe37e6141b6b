"""Pictures from files and data sets, and their crops.

Pictures are uint8 ``[height, width, 3]`` here, as files, Pillow and NumPy have them. Decoding and crops give
Pillow's pixels, to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from alitok import _alitok
from alitok._arrays import Images, Layout, count, laid_out, place as position, sources
from alitok._model import PACKAGE
from alitok.errors import InputError

__all__ = ["DataSet", "LeftOut", "Sample", "center_crop", "decode", "encode_png", "open", "read", "ten_crop"]

Views: TypeAlias = Literal["center", "mirrored", "ten_crop"]
"""Views of a picture: its centre crop, that and its mirror image, or the ten crops of training."""


def read(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read a PNG, JPEG, WebP or GIF file to the bits of Pillow's ``convert("RGB")``.

    Transparency is put on white, and orientation tags are ignored, as the released code does.

    Args:
        path: The file.

    Returns:
        The picture, uint8 ``[height, width, 3]``.
    """
    return np.asarray(_alitok.read(os.fspath(path)))


def decode(contents: bytes) -> npt.NDArray[np.uint8]:
    """Decode the contents of a picture file; see :func:`read`.

    Args:
        contents: The bytes.

    Returns:
        The picture, uint8 ``[height, width, 3]``.
    """
    return np.asarray(_alitok.decode_picture(bytes(contents)))


def encode_png(image: Images, *, layout: Layout | None = None) -> bytes:
    """Give a picture as the contents of a PNG file; the same picture always gives the same bytes.

    Args:
        image: One picture of any kind that :class:`alitok.Model` takes.
        layout: Where the channels of an array are.

    Returns:
        The bytes.
    """
    return _alitok.encode_png(_one(image, layout))


def _one(image: Images, layout: Layout | None) -> str | tuple[bytes, int, int]:
    given = sources(image, layout)
    if len(given) != 1:
        raise InputError(f"give one picture, not {len(given)}")
    return given[0]


def center_crop(
    images: Images, size: int, *, layout: Layout | None = None
) -> npt.NDArray[np.uint8]:
    """Crop pictures to their centre as ADM does (``center_crop_arr`` of guided-diffusion).

    Args:
        images: Pictures of any kind that :class:`alitok.Model` takes, of any size.
        size: Height and width of the crops, in pixels.
        layout: Where the channels are, of arrays that go in and of the result.

    Returns:
        The crops, uint8 ``[n, size, size, 3]``, or as ``layout`` says.
    """
    crops = _alitok.center_crops(sources(images, layout), count(size, "size"))
    return laid_out(np.asarray(crops), layout or "NHWC")


def ten_crop(
    image: Images, size: int, *, layout: Layout | None = None
) -> npt.NDArray[np.uint8]:
    """Give the ten views of a picture that a generator is trained on.

    Of the centre crop at 1.1 times the size the four corners and the centre, then the same five of its
    mirror image, in the order of torchvision's ``TenCrop``.

    Args:
        image: One picture of any kind that :class:`alitok.Model` takes, of any size.
        size: Height and width of the crops, in pixels.
        layout: Where the channels are, of an array that goes in and of the result.

    Returns:
        The crops, uint8 ``[10, size, size, 3]``, or as ``layout`` says.
    """
    crops = _alitok.ten_crops(_one(image, layout), count(size, "size"))
    return laid_out(np.asarray(crops), layout or "NHWC")


@dataclass(frozen=True)
class Sample:
    """A picture of a data set.

    Attributes:
        image: As it is stored, not yet cropped, uint8 ``[height, width, 3]``.
        label: Its class, a place in :attr:`DataSet.classes`.
        name: What it is called in its data set.
        caption: What it shows, if the data set says so.
    """

    image: npt.NDArray[np.uint8]
    label: int
    name: str
    caption: str | None


@dataclass(frozen=True)
class LeftOut:
    """What a source holds that is no sample, for one reason.

    Attributes:
        reason: Why.
        is_sample: Whether it was meant to be a sample, which is lost.
        count: How many there are.
        names: Names of the first of them.
    """

    reason: str
    is_sample: bool
    count: int
    names: list[str]


class DataSet:
    """Labelled pictures in a fixed order; :func:`open` makes one. It is pickled as its source."""

    def __init__(self, source: str | os.PathLike[str]) -> None:
        """Open a data set; see :func:`open`."""
        self.source = os.fspath(source)
        self._data = _alitok.DataSet(self.source, PACKAGE)

    def __reduce__(self) -> tuple[type[DataSet], tuple[str]]:
        return DataSet, (self.source,)

    def __repr__(self) -> str:
        return f"<alitok.data.DataSet {self.source!r}: {len(self)} pictures, {self.read_as}>"

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Sample:
        place = position(index, len(self), "sample")
        label, name, caption = self._data.about(place)
        return Sample(np.asarray(self._data.picture(place)), label, name, caption)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return self._data.classes()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each sample, int64 ``[n]``; reads no picture."""
        return np.asarray(self._data.labels())

    @property
    def read_as(self) -> str:
        """What the source was read as, in words."""
        return self._data.read_as()

    @property
    def left_out(self) -> list[LeftOut]:
        """What the source holds that is no sample, by reason, lost samples first."""
        return [LeftOut(*group) for group in self._data.left_out()]

    def name(self, index: int) -> str:
        """What a sample is called; reads no picture.

        Args:
            index: Its place.
        """
        return self._data.about(position(index, len(self), "sample"))[1]

    def views(self, index: int, size: int, views: Views = "center") -> npt.NDArray[np.uint8]:
        """Give views of a sample, as a token cache has them.

        Args:
            index: Its place.
            size: Height and width of a view, in pixels.
            views: ``"center"``, ``"mirrored"`` or ``"ten_crop"``.

        Returns:
            1, 2 or 10 views, uint8 ``[views, size, size, 3]``.
        """
        place, size = position(index, len(self), "sample"), count(size, "size")
        return np.asarray(self._data.views(place, size, views))


def open(source: str | os.PathLike[str]) -> DataSet:
    """Open a data set.

    Args:
        source: ``"bundled"`` or ``"bundled:heldout"``, which come with the package; a folder with a
            sub-folder a class; a folder of pictures, where ``FOLDER@FILE`` names the file of its labels; tar
            shards (WebDataset) or Parquet files, by a path or a pattern.

    Returns:
        The data set. What is no sample is counted in :attr:`DataSet.left_out`.
    """
    return DataSet(source)
