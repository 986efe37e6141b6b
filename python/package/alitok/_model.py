"""A model: encoding, decoding and drawing."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from alitok import _alitok
from alitok._arrays import (
    Images,
    Layout,
    Tokens,
    check_layout,
    count as whole_number,
    laid_out,
    sources,
    token_rows,
)
from alitok.errors import InputError

__all__ = ["Event", "Model", "Reconstruction", "Stream", "load"]

PACKAGE = str(Path(__file__).parent / "bundled")
"""The folder of what comes with the package; ``ALITOK_HOME`` goes before it."""

Decoder: TypeAlias = Literal["causal", "bidirectional"]
Precision: TypeAlias = Literal["f32", "bf16", "int8", "int4"]
Classes: TypeAlias = "str | int | Sequence[str | int] | npt.NDArray[np.integer[Any]]"
Prompts: TypeAlias = "str | Sequence[str] | npt.NDArray[np.str_]"
Wanted: TypeAlias = "tuple[list[int] | list[str] | None, list[int], int, int]"
Progress: TypeAlias = Callable[[int, int], object]
"""Called with what is done and the whole, a few times a second, on the calling thread. What it raises
stops the work and is raised by the call."""


def load(
    model: str | os.PathLike[str] = "mini",
    *,
    precision: Precision | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Model:
    """Open a model.

    Weights are read when they are first needed.

    Args:
        model: ``"mini"``, which comes with the package, or a model folder or a run's folder.
        precision: ``"f32"`` (the default), ``"bf16"``, ``"int8"`` or ``"int4"``. Each draws the same
            pictures from the same seed every time; from one to another they differ.
        device: ``"cpu"``. Other devices are refused with what to do.
        threads: Threads to compute on; all that the machine, or the container's quota, allows if left out.

    Returns:
        The model.

    Raises:
        FileError: If there is no such model, or it is damaged.
        InputError: If an argument is wrong.
        UnavailableError: If this build does not have the device.

    Example:
        >>> import alitok
        >>> model = alitok.load("mini")
        >>> model.generate(classes=["Flags"], count=2, seed=1).shape
        (2, 3, 64, 64)
    """
    return Model(model, precision=precision, device=device, threads=threads)


@dataclass(frozen=True)
class Reconstruction:
    """Pictures that went through the tokenizer and back.

    Attributes:
        images: The pictures as they came back, uint8.
        originals: The pictures as they went in, at the model's size.
        tokens: Their tokens, int64 ``[n, length]``.
        psnr: Peak signal-to-noise ratio of each, in decibels, float64 ``[n]``.
        ssim: Structural similarity of each, at most 1, float64 ``[n]``.
    """

    images: npt.NDArray[np.uint8]
    originals: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int64]
    psnr: npt.NDArray[np.float64]
    ssim: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """What happened while pictures are drawn.

    Attributes:
        kind: ``"row"``: the prefix, or a row of the grid, is decided. ``"preview"``: the rows so far, as a
            picture. ``"picture"``: a picture has all of its tokens.
        picture: The picture's number.
        tokens: Its tokens so far, int64 ``[decided]``; ``None`` with a preview.
        image: uint8, for a preview as high as the rows that are decided; ``None`` with a row.
    """

    kind: Literal["row", "preview", "picture"]
    picture: int
    tokens: npt.NDArray[np.int64] | None
    image: npt.NDArray[np.uint8] | None


class Stream(Iterator[Event]):
    """An iterator over what happens while pictures are drawn, on a thread beside.

    It is a context manager, which stops drawing at its end. A stream belongs to the process that began it.
    """

    def __init__(self, stream: _alitok.Stream, layout: Layout) -> None:
        self._stream = stream
        self._layout: Layout = layout

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Event:
        kind, picture, tokens, image = self._stream.next()
        return Event(
            kind,
            picture,
            None if tokens is None else np.asarray(tokens),
            None if image is None else laid_out(np.asarray(image), self._layout),
        )

    def cancel(self, picture: int) -> None:
        """Cancel a picture; of it, no more than what is drawn already follows.

        Args:
            picture: Its number.
        """
        self._stream.cancel(picture)

    def close(self) -> None:
        """Stop drawing; no events follow."""
        self._stream.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Model:
    """A tokenizer and, in most models, a generator of its tokens, of classes or of what prompts say.

    A model may be used by many threads, and after a fork: each process loads the weights for itself.
    It is pickled as its name and settings.

    Images that go in are of any of these kinds, one or several: arrays of uint8 or of floats in [0, 1],
    ``[n, height, width, 3]`` or ``[n, 3, height, width]`` or one of them; tensors of PyTorch or of whatever
    has DLPack; PIL images; paths; lists of these. Floats are rounded to 8 bits. Pictures of another size
    than the model's are cropped to the centre, as ADM does.

    Images that come out are uint8 ``[n, 3, height, width]``, or ``[n, height, width, 3]`` with
    ``layout="NHWC"``. ``torch.from_dlpack`` takes them without a copy.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "mini",
        *,
        precision: Precision | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        """Open a model; see :func:`load`."""
        name = os.fspath(model)
        if not isinstance(name, str):
            raise InputError(f"a model is a name or a path, not {model!r}")
        if threads is not None:
            threads = whole_number(threads, "threads", most=2**16)
        self._settings = (name, precision, device, threads)
        self._model = _alitok.Model(name, PACKAGE, device, precision, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, self._settings

    def __repr__(self) -> str:
        height, width = self.image_size
        what = f"{width} x {height} pixels, {self.length} tokens"
        if self.has_generator:
            what += f", {len(self.classes)} classes"
        if self.reads_prompts:
            what += ", reads prompts"
        return f"<alitok.Model {self.path!r}: {what}, {self.precision}>"

    @property
    def path(self) -> str:
        """The model's folder."""
        return self._model.path

    @property
    def precision(self) -> str:
        """The number format of the computation."""
        return self._model.precision

    @property
    def device(self) -> str:
        """What computes."""
        return self._model.device

    @property
    def config(self) -> dict[str, Any]:
        """Architectures and sampling defaults, as ``config.json`` has them."""
        config: dict[str, Any] = json.loads(self._model.config_json())
        return config

    @property
    def classes(self) -> list[str]:
        """Names of the generator's classes, in the order of their labels; empty without a generator."""
        return self._model.classes()

    @property
    def has_generator(self) -> bool:
        """Whether it draws classes."""
        return self._model.has_generator()

    @property
    def reads_prompts(self) -> bool:
        """Whether it draws what prompts say."""
        return self._model.reads_prompts()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its pictures, in pixels."""
        return self._model.size()

    @property
    def token_layout(self) -> tuple[int, int, int]:
        """Prefix tokens, and rows and columns of the grid of a picture."""
        return self._model.layout()

    @property
    def length(self) -> int:
        """Tokens of a picture."""
        prefix, rows, columns = self.token_layout
        return prefix + rows * columns

    def encode(
        self,
        images: Images,
        *,
        layout: Layout | None = None,
        crop: bool = True,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.int64]:
        """Turn pictures into tokens.

        Args:
            images: Pictures of any kind that the class lists.
            layout: Where the channels of arrays are, ``"NCHW"`` or ``"NHWC"``; found out by their number
                if left out.
            crop: Whether pictures of another size are cropped to the centre; otherwise they are refused.
            progress: Called with the pictures done and their number.

        Returns:
            Tokens, int64 ``[n, length]``.

        Raises:
            InputError: If these are no pictures.
            FileError: If a picture cannot be read.
        """
        given = sources(images, layout)
        return np.asarray(self._model.encode(given, bool(crop), progress))

    def decode(
        self,
        tokens: Tokens,
        *,
        decoder: Decoder | None = None,
        layout: Layout = "NCHW",
        progress: Progress | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Turn tokens into pictures.

        Args:
            tokens: Integers ``[n, length]`` or ``[length]``.
            decoder: ``"bidirectional"``, the default where the model has it, or ``"causal"``.
            layout: Where the channels of the result are.
            progress: Called with the pictures done and their number.

        Returns:
            Pictures, uint8 ``[n, 3, height, width]``.

        Raises:
            InputError: If there are too few or too many tokens, or one is no code.
        """
        check_layout(layout)
        rows = token_rows(tokens)
        if rows.shape[1] != self.length:
            raise InputError(
                f"{rows.shape[1]} tokens are no picture: this model's pictures have {self.length}"
            )
        pictures = self._model.decode(rows.tolist(), decoder, progress)
        return laid_out(np.asarray(pictures), layout)

    def reconstruct(
        self,
        images: Images,
        *,
        decoder: Decoder | None = None,
        layout: Layout | None = None,
        crop: bool = True,
        progress: Progress | None = None,
    ) -> Reconstruction:
        """Turn pictures into tokens and back, and say what was lost.

        Args:
            images: Pictures of any kind that the class lists.
            decoder: ``"bidirectional"``, the default where the model has it, or ``"causal"``.
            layout: Where the channels are, of arrays that go in and of the result.
            crop: Whether pictures of another size are cropped to the centre; otherwise they are refused.
            progress: Called with the pictures done and their number.

        Returns:
            The pictures as they came back, as they went in, their tokens, and PSNR and SSIM of each.
        """
        given = sources(images, layout)
        originals, rebuilt, tokens = self._model.reconstruct(given, bool(crop), decoder, progress)
        before, after = np.asarray(originals), np.asarray(rebuilt)
        pairs = (before.tobytes(), after.tobytes(), before.shape[:3])
        empty = np.zeros(0)
        least = min(self.image_size)
        return Reconstruction(
            images=laid_out(after, layout or "NCHW"),
            originals=laid_out(before, layout or "NCHW"),
            tokens=np.asarray(tokens),
            psnr=np.asarray(_alitok.psnr(pairs)) if len(before) else empty,
            ssim=np.asarray(_alitok.ssim(pairs))
            if len(before) and least >= 11
            else np.full(len(before), np.nan),
        )

    def _labels(self, classes: Classes) -> list[int]:
        """Labels of classes by name or number, in their order."""
        if isinstance(classes, str):
            if classes == "all" and "all" not in self.classes:
                return list(range(self._model.class_count()))
            classes = [classes]
        names: Sequence[Any] = list(classes) if isinstance(classes, Iterable) else [classes]
        labels = []
        for name in names:
            if isinstance(name, str):
                label, note = self._model.class_label(name)
                if note:
                    warnings.warn(note, stacklevel=3)
            elif isinstance(name, (bool, np.bool_)):
                raise InputError(f"a class is a name or a number, not {name!r}")
            else:
                # As the command line reads a number: one that is a class's name is that class.
                label = whole_number(name, "a class", least=0)
            labels.append(label)
        if not labels:
            raise InputError("give at least one class")
        return labels

    def _subject(
        self, classes: Classes | None, prompts: Prompts | None
    ) -> list[int] | list[str] | None:
        """What pictures are to show."""
        if classes is not None and prompts is not None:
            raise InputError("give classes or prompts, not both")
        if prompts is not None:
            return _texts(prompts)
        return None if classes is None else self._labels(classes)

    def _wanted(
        self, classes: Classes | None, prompts: Prompts | None, count: int, seed: int
    ) -> Wanted:
        subject = self._subject(classes, prompts)
        if subject is None and self.reads_prompts:
            raise InputError("give prompts: this model draws what they say")
        if subject is None:
            raise InputError("give classes, by name or number; `model.classes` lists them")
        return (
            subject,
            [],
            whole_number(count, "count", most=2**32 - 1),
            whole_number(seed, "seed", least=0, most=2**64 - 1),
        )

    def generate(
        self,
        classes: Classes | None = None,
        *,
        prompts: Prompts | None = None,
        count: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        guidance_power: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        batch: int = 16,
        decoder: Decoder | None = None,
        layout: Layout = "NCHW",
        progress: Progress | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Draw pictures.

        Picture i is picture i of ``alitok generate`` with the same arguments, to the bit.

        Args:
            classes: Classes by name or number; ``"all"`` for every one. Picture i has class i mod C.
            prompts: What the pictures show, in words, of a model that reads prompts (``reads_prompts``); in
                place of classes. Picture i has prompt i mod C.
            count: Pictures of each class or prompt.
            seed: The same seed draws the same pictures.
            guidance: Strength of classifier-free guidance; 1 (or 0) is none. The model's if left out.
            guidance_power: Power of the guidance's cosine schedule. The model's if left out.
            temperature: Divides the logits; 0 always takes the likeliest token. The model's if left out.
            top_k: Keep only so many of the likeliest tokens; 0 keeps all. The model's if left out.
            top_p: Keep only the likeliest tokens that sum to this probability. The model's if left out.
            batch: Pictures that are drawn side by side; changes memory and speed, not results.
            decoder: ``"bidirectional"``, the default where the model has it, or ``"causal"``.
            layout: Where the channels of the result are.
            progress: Called with the tokens done and their number.

        Returns:
            Pictures, uint8 ``[C * count, 3, height, width]``.

        Raises:
            InputError: If an argument is wrong, or the model does not draw, or draws prompts and was given
                classes, or the other way round.
            KeyboardInterrupt: On Ctrl-C, within a token's time.
        """
        check_layout(layout)
        wanted = self._wanted(classes, prompts, count, seed)
        changes = _changes(guidance, guidance_power, temperature, top_k, top_p)
        batch = whole_number(batch, "batch")
        drawn, _ = self._model.draw(wanted, changes, batch, True, decoder, progress)
        return laid_out(np.asarray(drawn), layout)

    def generate_tokens(
        self,
        classes: Classes | None = None,
        *,
        prompts: Prompts | None = None,
        count: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        guidance_power: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        batch: int = 16,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.int64]:
        """Draw the tokens of pictures, which :meth:`decode` turns into the pictures of :meth:`generate`.

        Args:
            classes: See :meth:`generate`, as for all other arguments.
            prompts: In place of classes, of a model that reads prompts.
            count: Pictures of each class or prompt.
            seed: The same seed draws the same pictures.
            guidance: Strength of guidance.
            guidance_power: Power of its schedule.
            temperature: Divides the logits.
            top_k: Keep only so many tokens.
            top_p: Keep only tokens of this probability.
            batch: Pictures that are drawn side by side.
            progress: Called with the tokens done and their number.

        Returns:
            Tokens, int64 ``[C * count, length]``.
        """
        wanted = self._wanted(classes, prompts, count, seed)
        changes = _changes(guidance, guidance_power, temperature, top_k, top_p)
        batch = whole_number(batch, "batch")
        _, tokens = self._model.draw(wanted, changes, batch, False, None, progress)
        return np.asarray(tokens)

    def stream(
        self,
        classes: Classes | None = None,
        *,
        prompts: Prompts | None = None,
        count: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        guidance_power: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        batch: int = 16,
        previews: int = 0,
        decoder: Decoder | None = None,
        layout: Layout = "NCHW",
    ) -> Stream:
        """Draw pictures row by row.

        Args:
            classes: See :meth:`generate`, as for all arguments that are not below.
            prompts: In place of classes, of a model that reads prompts.
            count: Pictures of each class or prompt.
            seed: The same seed draws the same pictures.
            guidance: Strength of guidance.
            guidance_power: Power of its schedule.
            temperature: Divides the logits.
            top_k: Keep only so many tokens.
            top_p: Keep only tokens of this probability.
            batch: Pictures that are drawn side by side.
            previews: Also give a preview after every so many rows, by the causal decoder; 0 gives none.
            decoder: The decoder of finished pictures.
            layout: Where the channels of pictures are.

        Returns:
            An iterator of :class:`Event`. Drawing goes on beside, some hundred events ahead at most.
        """
        check_layout(layout)
        wanted = self._wanted(classes, prompts, count, seed)
        changes = _changes(guidance, guidance_power, temperature, top_k, top_p)
        batch = whole_number(batch, "batch")
        previews = whole_number(previews, "previews", least=0)
        return Stream(self._model.stream(wanted, changes, batch, previews, decoder), layout)

    def complete(
        self,
        image: Images,
        rows: int,
        *,
        classes: str | int | None = None,
        prompts: str | None = None,
        count: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        guidance_power: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        batch: int = 16,
        decoder: Decoder | None = None,
        layout: Layout | None = None,
        crop: bool = True,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Keep the top of a picture and draw the rest.

        Args:
            image: One picture of any kind that the class lists.
            rows: Rows of patches to keep, at least 1.
            classes: The class, by name or number. Without one the rest is drawn as training draws where it
                leaves the class out: the given rows alone say what it becomes.
            prompts: What the picture shows, in words, of a model that reads prompts. Without it the rest is
                drawn as training draws where it leaves the caption out.
            count: Number of completions.
            seed: The same seed draws the same pictures.
            guidance: See :meth:`generate`, as for all arguments that are not here.
            guidance_power: Power of the schedule of guidance.
            temperature: Divides the logits.
            top_k: Keep only so many tokens.
            top_p: Keep only tokens of this probability.
            batch: Pictures that are drawn side by side.
            decoder: The decoder.
            layout: Where the channels are, of an array that goes in and of the result.
            crop: Whether a picture of another size is cropped to the centre.
            progress: Called with the tokens done and their number.

        Returns:
            Pictures, uint8 ``[count, 3, height, width]``.
        """
        given = sources(image, layout)
        if len(given) != 1:
            raise InputError(f"one picture is completed at a time, not {len(given)}")
        prefix, all_rows, columns = self.token_layout
        rows = whole_number(rows, "rows", most=all_rows)
        subject = self._subject(classes, prompts)
        if subject is not None and len(subject) != 1:
            what = "class" if prompts is None else "prompt"
            raise InputError(f"a picture is completed as one {what}, not as {len(subject)}")
        count = whole_number(count, "count", most=2**32 - 1)
        seed = whole_number(seed, "seed", least=0, most=2**64 - 1)
        batch = whole_number(batch, "batch")
        tokens = np.asarray(self._model.encode(given, bool(crop), None))
        forced = tokens[0, : prefix + rows * columns].tolist()
        changes = _changes(guidance, guidance_power, temperature, top_k, top_p)
        wanted: Wanted = (subject, forced, count, seed)
        drawn, _ = self._model.draw(wanted, changes, batch, True, decoder, progress)
        return laid_out(np.asarray(drawn), layout or "NCHW")


def _opened(
    name: str, precision: Precision | None, device: str, threads: int | None
) -> Model:
    return Model(name, precision=precision, device=device, threads=threads)


def _texts(prompts: Prompts) -> list[str]:
    """Prompts as a list."""
    given: Iterable[Any] = [prompts] if isinstance(prompts, (str, bytes)) else prompts
    if not isinstance(given, Iterable):
        raise InputError(f"prompts are texts, not {prompts!r}")
    texts = list(given)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"a prompt is a text, not {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"a prompt holds what is no character: {text!a}") from None
    if not texts:
        raise InputError("give at least one prompt")
    return [str(text) for text in texts]


Changes: TypeAlias = (
    "tuple[float | None, float | None, float | None, int | None, float | None]"
)


def _changes(
    guidance: float | None,
    guidance_power: float | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
) -> Changes:
    """What was asked of sampling, checked for its types; the compiled half checks the ranges."""

    def number(value: object, what: str) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool):
            raise InputError(f"{what} is a number, not {value!r}")
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise InputError(f"{what} is a number, not {value!r}") from None

    return (
        number(guidance, "guidance"),
        number(guidance_power, "guidance_power"),
        number(temperature, "temperature"),
        None if top_k is None else whole_number(top_k, "top_k", least=0),
        number(top_p, "top_p"),
    )
