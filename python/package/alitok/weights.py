"""The authors' files of weights, in and out."""

from __future__ import annotations

import os
import warnings
from typing import Any, Literal

import numpy as np

from alitok import _alitok
from alitok._model import Decoder, Model
from alitok.errors import InputError, UnavailableError

__all__ = ["export", "import_", "state_dict"]


def import_(
    tokenizer: str | os.PathLike[str],
    generator: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    storage: Literal["f32", "bf16"] = "f32",
    weights: Literal["ema", "raw"] | None = None,
) -> Model:
    """Import released weights as a model folder. Nothing in the files is executed.

    Args:
        tokenizer: A checkpoint of the authors' tokenizer (``.pth``, ``.bin`` or ``.safetensors``).
        generator: One of their generator, for the tokenizer's tokens.
        out: The model folder to write.
        storage: How weights are stored.
        weights: Which weights to take of files that hold two sets of them.

    Returns:
        The model. What a person should know of the files is warned of.

    Raises:
        FileError: If a file is no such checkpoint, the two do not belong together, or ``out`` is taken.
    """
    notes = _alitok.import_weights(
        os.fspath(tokenizer),
        os.fspath(out),
        None if generator is None else os.fspath(generator),
        storage,
        weights,
    )
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return Model(out)


def export(
    model: Model,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    generator: str | os.PathLike[str] | None = None,
    decoder: Decoder | None = None,
) -> None:
    """Write weights as the authors' code reads them.

    Args:
        model: The model.
        tokenizer: The file for the tokenizer with one of its decoders: ``.safetensors`` by its ending, or
            else a checkpoint of PyTorch.
        generator: The file for the generator.
        decoder: The decoder; the bidirectional one where the model has it.

    Raises:
        InputError: If the released code cannot express the model.
    """
    if tokenizer is None and generator is None:
        raise InputError("name a file for the tokenizer or for the generator")
    _alitok.export_weights(
        model._model,
        None if tokenizer is None else os.fspath(tokenizer),
        None if generator is None else os.fspath(generator),
        decoder,
    )


def state_dict(
    model: Model,
    part: Literal["generator", "tokenizer"] = "generator",
    *,
    decoder: Decoder | None = None,
    numpy: bool = False,
) -> dict[str, Any]:
    """Give the weights of a model under the authors' names, for ``load_state_dict``.

    Args:
        model: The model.
        part: ``"generator"`` or ``"tokenizer"``.
        decoder: The tokenizer's decoder; the bidirectional one where the model has it.
        numpy: Give NumPy arrays, which needs no PyTorch, in place of tensors.

    Returns:
        Names to float32 tensors.

    Raises:
        InputError: If the released code cannot express the model.
        UnavailableError: If PyTorch is not installed and ``numpy`` was not asked for.
    """
    tensors = {
        name: np.asarray(tensor)
        for name, tensor in _alitok.state_dict(model._model, part, decoder).items()
    }
    if numpy:
        return tensors
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(
            "PyTorch is not installed; install it, or take NumPy arrays with numpy=True"
        ) from error
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
