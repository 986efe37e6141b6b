"""AliTok: pictures as short sequences of tokens, and a generator that draws them.

>>> import alitok
>>> model = alitok.load("mini")
>>> images = model.generate(classes=["Flags"], count=4, seed=1)
>>> tokens = model.encode(images)
>>> tokens.shape
(4, 72)

==================== =====================================================================
:func:`load`         opens a :class:`Model`: encode, decode, reconstruct, generate, stream, complete
:class:`TokenCache`  the tokens of a data set, mapped into memory
:mod:`alitok.data`   data sets, and crops equal to Pillow's
:mod:`alitok.metrics` FID and its kin, precision and recall, PSNR, SSIM, LPIPS
:mod:`alitok.weights` the authors' files, in and out; :func:`state_dict` for PyTorch
:mod:`alitok.torch`  token caches as data sets of PyTorch
:mod:`alitok.errors` what can go wrong
==================== =====================================================================

Work runs without Python's lock, and Ctrl-C stops it. Nothing here needs PyTorch; what does, imports it late.
"""

from alitok import data, errors, metrics, torch, weights
from alitok._alitok import VERSION as __version__
from alitok._cache import TokenCache
from alitok._model import Event, Model, Reconstruction, Stream, load
from alitok.errors import (
    AlitokError,
    FileError,
    InputError,
    OutOfMemoryError,
    OutOfRangeError,
    UnavailableError,
)
from alitok.weights import state_dict

__all__ = [
    "AlitokError",
    "Event",
    "FileError",
    "InputError",
    "Model",
    "OutOfMemoryError",
    "OutOfRangeError",
    "Reconstruction",
    "Stream",
    "TokenCache",
    "UnavailableError",
    "__version__",
    "data",
    "errors",
    "load",
    "metrics",
    "state_dict",
    "torch",
    "weights",
]
