"""What the tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import alitok

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def model() -> alitok.Model:
    return alitok.load("mini")


@pytest.fixture(scope="session")
def images(model: alitok.Model) -> np.ndarray:
    """Four pictures, uint8 ``[4, 3, 64, 64]``."""
    return model.generate([1, 3], count=2, seed=5)


def built(name: str) -> str:
    """A program of the same sources, where it was built."""
    variable = name.upper().replace("-", "_") + "_PROGRAM"
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = os.environ.get(variable) or str(target / "release" / name)
    if not Path(found).is_file():
        pytest.skip(f"the program {name} is not built; {variable} names it")
    return found


@pytest.fixture(scope="session")
def program() -> str:
    """The command line that draws."""
    return built("alitok")


@pytest.fixture(scope="session")
def reference_program() -> str:
    """The command line that trains, too."""
    return built("alitok-reference")


@pytest.fixture(scope="session")
def cache_path(model: alitok.Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A token cache of 40 pictures in ten views, in two shards, one picture of it left out."""
    folder = tmp_path_factory.mktemp("data")
    data = alitok.data.open("bundled:heldout")
    for index in range(40):
        sample = data[index]
        place = folder / f"class {sample.label}"
        place.mkdir(exist_ok=True)
        (place / f"{index:02}.png").write_bytes(alitok.data.encode_png(sample.image))
    first = sorted(folder.rglob("*.png"))[3]
    first.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path_factory.mktemp("cache") / "cache"
    for shard in range(2):
        try:
            alitok.TokenCache.build(
                alitok.data.open(folder), model, out, views="ten_crop", shard=(shard, 2)
            )
        except alitok.FileError:
            assert shard == 0, "the first of two shards is no whole cache"
    return str(out)
