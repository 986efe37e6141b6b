"""Errors of this package. All of them are :class:`AlitokError`; each is a built-in error, too."""

__all__ = [
    "AlitokError",
    "FileError",
    "InputError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "UnavailableError",
]


class AlitokError(Exception):
    """Any error of this package."""


class InputError(AlitokError, ValueError):
    """An argument is wrong: a shape, a type, a range, a name."""


class OutOfRangeError(AlitokError, IndexError):
    """There is no such sample, picture or view."""


class FileError(AlitokError, OSError):
    """A file or folder is missing, damaged, or something else than it should be."""


class OutOfMemoryError(AlitokError, MemoryError):
    """Memory does not hold what was asked for. Nothing was begun."""


class UnavailableError(AlitokError, RuntimeError):
    """This build, or this process, cannot do it: a device, a network, a stream after a fork."""
