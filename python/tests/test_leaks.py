"""Ten thousand calls leave no memory behind."""

import gc
import sys

import numpy as np
import pytest

import alitok

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident():
    """Bytes that are this process's own."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


PICTURE = np.zeros((64, 64, 3), np.uint8)
FEATURES = np.eye(4, dtype=np.float32)


@pytest.fixture(scope="module")
def calls(cache_path, tmp_path_factory):
    cache = alitok.TokenCache(cache_path)
    picture = tmp_path_factory.mktemp("picture") / "picture.png"
    picture.write_bytes(alitok.data.encode_png(PICTURE))
    moments = alitok.metrics.FrechetDistance()
    moments.update(FEATURES, real=True)

    def error():
        with pytest.raises(alitok.FileError):
            alitok.data.read("nowhere")

    return {
        "crops": lambda: alitok.data.ten_crop(PICTURE, 16),
        "files": lambda: alitok.data.read(picture),
        "records": lambda: cache[0],
        "opened caches": lambda: alitok.TokenCache(cache_path),
        "distances": lambda: alitok.metrics.frechet_distance(FEATURES, FEATURES),
        "pairs": lambda: alitok.metrics.psnr(PICTURE, PICTURE),
        "errors": error,
    }


@pytest.mark.parametrize(
    "name", ["crops", "files", "records", "opened caches", "distances", "pairs", "errors"]
)
def test_should_leave_nothing_behind(calls, name):
    call = calls[name]
    for _ in range(1000):
        call()
    before = resident()
    for _ in range(10_000):
        call()
    # A leak of 100 bytes a call would be 1 MB; allocators and caches move by less than 4.
    assert resident() - before < 4 << 20


def test_should_leave_no_drawing_behind():
    model = alitok.load(threads=1)
    first = lambda: next(model.stream(0))  # noqa: E731
    for _ in range(30):
        first()
    before = resident()
    for _ in range(200):
        first()
    assert resident() - before < 8 << 20


def test_should_leave_no_model_behind():
    load = lambda: alitok.load(threads=1).encode(PICTURE)  # noqa: E731
    for _ in range(5):
        load()
    before = resident()
    for _ in range(20):
        load()
    assert resident() - before < 20 << 20
