"""Arguments of many kinds, brought to the few that the compiled half takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from alitok.errors import InputError, OutOfRangeError

__all__ = ["Images", "Layout", "Tokens"]

Layout: TypeAlias = Literal["NCHW", "NHWC"]
"""Where the channels of pictures are: before height and width, as PyTorch has them, or behind."""

Images: TypeAlias = Any
"""Pictures: an array or tensor of one or several, a PIL image, a path, or a list of these."""

Tokens: TypeAlias = Any
"""Tokens of pictures: an array or tensor of integers ``[n, length]`` or ``[length]``, or a list."""

Source: TypeAlias = Union[str, tuple[bytes, int, int]]

_LAYOUTS = ("NCHW", "NHWC")


def check_layout(layout: object) -> None:
    """Refuses what is no layout."""
    if layout not in _LAYOUTS:
        raise InputError(f"layout is 'NCHW' or 'NHWC', not {layout!r}")


def laid_out(pictures: npt.NDArray[np.uint8], layout: Layout) -> npt.NDArray[np.uint8]:
    """Pictures ``[..., height, width, 3]`` in a layout, each in memory as the layout says."""
    check_layout(layout)
    if layout == "NHWC":
        return pictures
    return np.ascontiguousarray(np.moveaxis(pictures, -1, -3))


def _is_path(value: object) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_pil(value: object) -> bool:
    return hasattr(value, "tobytes") and hasattr(value, "getbands") and hasattr(value, "convert")


def as_array(value: Any, what: str) -> npt.NDArray[Any]:
    """A NumPy array of an array, of a tensor of any library with DLPack, or of nested lists."""
    if isinstance(value, np.ndarray):
        return value
    # A tensor of PyTorch: one that needs a gradient, is conjugated or elsewhere says so by itself.
    detach = getattr(value, "detach", None)
    if callable(detach):
        value = detach()
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            value = value.float()
        device = getattr(getattr(value, "device", None), "type", "cpu")
        if device != "cpu":
            value = value.cpu()
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from error


def _bytes_of(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """8-bit values of pictures: bytes as they are, floats in [0, 1] times 255, rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_ or not (
        np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    ):
        raise InputError(
            f"pictures are uint8, or floats in [0, 1]; these have the type {array.dtype}"
        )
    if np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"pictures of integers are uint8, these are {array.dtype}; "
            "convert them with .astype('uint8') if their values are 0 to 255"
        )
    if array.size == 0:
        return array.astype(np.uint8)
    least, most = array.min(), array.max()
    # Not a number compares with nothing.
    if not (least >= 0 and most <= 1):
        if np.isnan(least) or np.isnan(most):
            raise InputError("pictures of floats hold a value that is not a number")
        raise InputError(
            f"pictures of floats are in [0, 1], these go from {float(least):g} to {float(most):g}; "
            "divide 0 to 255 by 255, or bring -1 to 1 there by x / 2 + 0.5"
        )
    wide = array if array.dtype == np.float64 else array.astype(np.float32)
    bytes_: npt.NDArray[np.uint8] = np.rint(wide * 255).astype(np.uint8)
    return bytes_


def pictures_of(array: npt.NDArray[Any], layout: Layout | None) -> npt.NDArray[np.uint8]:
    """8-bit pictures ``[n, height, width, 3]`` of an array of one or several, which may be gray."""
    if array.ndim == 2:
        array = array[None, :, :, None]
        layout = "NHWC"
    elif array.ndim == 3:
        array = array[None]
    if array.ndim != 4:
        raise InputError(
            f"pictures have the shape [n, height, width, 3] or [n, 3, height, width], or that of one "
            f"without n; this is {list(array.shape)}"
        )
    if layout is None:
        first, last = (array.shape[axis] in (1, 3) for axis in (1, 3))
        if first and last and array.shape[1] != array.shape[3]:
            # Of one channel and of three: the three are colours.
            first, last = array.shape[1] == 3, array.shape[3] == 3
        if first and last:
            raise InputError(
                f"pictures of the shape {list(array.shape)} may have their channels first or last; say "
                "which with layout='NCHW' or layout='NHWC'"
            )
        if not first and not last:
            raise InputError(
                f"pictures have 3 channels (or 1), first or last; the shape is {list(array.shape)}"
            )
        layout = "NCHW" if first else "NHWC"
    check_layout(layout)
    if layout == "NCHW":
        array = np.moveaxis(array, 1, -1)
    if array.shape[3] not in (1, 3):
        raise InputError(
            f"pictures have 3 channels (or 1), these have {array.shape[3]}; "
            "leave transparency out, or convert them to RGB"
        )
    if 0 in array.shape[1:3]:
        raise InputError(f"pictures have at least one pixel; the shape is {list(array.shape)}")
    pictures = _bytes_of(array)
    if pictures.shape[3] == 1:
        pictures = np.repeat(pictures, 3, axis=3)
    return pictures


def _of_pil(image: Any) -> tuple[bytes, int, int]:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in getattr(image, "info", {}):
        # As files are read: on white.
        image = image.convert("RGBA")
        flat = np.asarray(image, dtype=np.uint32)
        alpha = flat[..., 3:4]
        flat = (flat[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return flat.astype(np.uint8).tobytes(), image.height, image.width
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.tobytes(), image.height, image.width


def sources(images: Images, layout: Layout | None = None) -> list[Source]:
    """What the compiled half takes for pictures: names of files, or bytes with height and width."""
    if layout is not None:
        check_layout(layout)
    if _is_path(images):
        return [os.fspath(images)]
    if _is_pil(images):
        return [_of_pil(images)]
    if isinstance(images, (list, tuple)):
        found: list[Source] = []
        for image in images:
            if isinstance(image, (list, tuple)) or np.isscalar(image) and not _is_path(image):
                # Nested lists of numbers.
                return sources(as_array(images, "pictures"), layout)
            one = sources(image, layout)
            if len(one) != 1:
                raise InputError(
                    f"a list of pictures has one in each place; place {len(found)} holds {len(one)}"
                )
            found += one
        return found
    if isinstance(images, Iterable) and not hasattr(images, "__array__") and not hasattr(
        images, "__dlpack__"
    ):
        return sources(list(images), layout)
    pictures = pictures_of(as_array(images, "pictures"), layout)
    return [(picture.tobytes(), picture.shape[0], picture.shape[1]) for picture in pictures]


def token_rows(tokens: Tokens) -> npt.NDArray[np.int64]:
    """Tokens as int64 ``[n, length]``."""
    array = as_array(tokens, "tokens")
    if array.ndim == 1 and array.dtype != np.object_:
        array = array[None]
    if array.ndim != 2:
        raise InputError(f"tokens have the shape [n, length] or [length], not {list(array.shape)}")
    if array.size == 0 and not np.issubdtype(array.dtype, np.integer):
        return np.zeros(array.shape, np.int64)
    return integers(array, "tokens")


def integers(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.int64]:
    """Integers of any size as int64."""
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what} are integers, these have the type {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{what} hold a value that is too large: {array.max()}")
    return array.astype(np.int64, copy=False)


def rows_of(features: Any, what: str = "features") -> tuple[bytes, int]:
    """Features ``[rows, width]`` as the compiled half takes them: bytes of float32, and the width."""
    array = as_array(features, what)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{what} have the shape [rows, width], not {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{what} are floats, these have the type {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False).tobytes(), array.shape[1]


def count(value: Any, what: str, least: int = 1, most: int = 2**40) -> int:
    """A whole number in a range."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise InputError(f"{what} is a whole number, not {value!r}") from None
    if number < least:
        raise InputError(f"{what} is at least {least}, not {number}")
    if number > most:
        raise InputError(f"{what} is at most {most}, not {number}")
    return int(number)


def place(index: Any, length: int, what: str) -> int:
    """A place in a sequence, counted from its end if it is below 0."""
    number = count(index, f"the number of a {what}", least=-(2**40))
    if not -length <= number < length:
        raise OutOfRangeError(f"there is no {what} {number}: there are {length}")
    return number % length
