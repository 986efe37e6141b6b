"""Times throughput.rs beside Pillow, simplejpeg and torchvision, in turns, on one thread.

    python throughput.py target/release/examples/throughput

Needs NumPy, Pillow or Pillow-SIMD, simplejpeg, torch and torchvision. Pillow-SIMD is made from source:

    CC='cc -mavx2' pip install --no-build-isolation --no-deps --no-binary pillow-simd pillow-simd

with setuptools >= 77, pybind11, libjpeg-dev and zlib1g-dev there. The pictures are 16 JPEG files of 500 x 375
pixels at quality 90 and 4:2:0, made of tests/fixtures/photo_0.png: enlarged parts with noise, about
as many bytes as ImageNet's. Each program works on one picture after the other, from bytes in memory
to pixels at 256; the table shows the median over all rounds.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import PIL
import simplejpeg
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

SIZE, ROUNDS, TURNS = 256, 8, 5


def make_files(folder):
    photo = Image.open(os.path.join(os.path.dirname(__file__), "../../../tests/fixtures/photo_0.png"))
    photo = photo.convert("RGB")
    noise = np.random.default_rng(0)
    paths = []
    for number in range(16):
        left, top = noise.integers(0, photo.width - 200), noise.integers(0, photo.height - 150)
        part = photo.crop((left, top, left + 200, top + 150)).resize((500, 375), Image.LANCZOS)
        pixels = np.asarray(part, np.float32) + noise.normal(0, 7, (375, 500, 3))
        path = os.path.join(folder, f"{number:02}.jpg")
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(path, quality=90, subsampling=2)
        paths.append(path)
    return paths


def center(picture, size):
    """As ADM: halved by box, then bicubic, then cut."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize(tuple(side // 2 for side in picture.size), Image.BOX)
    scale = size / min(picture.size)
    picture = picture.resize(tuple(round(side * scale) for side in picture.size), Image.BICUBIC)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


ten_crop = v2.TenCrop(SIZE)


def ten(picture):
    return [np.asarray(crop) for crop in ten_crop(center(picture, int(SIZE * 1.1)))]


def pillow(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def fast(data):
    return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))


def torch_center(data):
    picture = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    picture = v2.functional.resize(picture, [SIZE], v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.functional.center_crop(picture, [SIZE])


def timed(work, items):
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for item in items:
            work(item)
        times.append((time.perf_counter() - start) * 1e6 / len(items))
    return times


def main():
    program = sys.argv[1]
    torch.set_num_threads(1)
    versions = [PIL.__version__, simplejpeg.__version__, torch.__version__, torchvision.__version__]
    pillow_name = "Pillow-SIMD" if ".post" in PIL.__version__ else "Pillow"
    print(pillow_name + " {}, simplejpeg {}, torch {}, torchvision {}".format(*versions))
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(folder)
        files = [open(path, "rb").read() for path in paths]
        decoded = [fast(data) for data in files]
        print(f"{len(files)} files of {sum(map(len, files)) // len(files)} bytes in the mean")

        def ours(task):
            command = [program, task, str(ROUNDS), *paths]
            return [float(line) for line in subprocess.check_output(command).split()]

        tasks = {
            "center": {
                "ours": lambda: ours("center"),
                f"simplejpeg + {pillow_name}": lambda: timed(lambda d: np.asarray(center(fast(d), SIZE)), files),
                pillow_name: lambda: timed(lambda d: np.asarray(center(pillow(d), SIZE)), files),
                "torchvision": lambda: timed(torch_center, files),
            },
            "ten": {
                "ours": lambda: ours("ten"),
                f"simplejpeg + {pillow_name}": lambda: timed(lambda d: ten(fast(d)), files),
                pillow_name: lambda: timed(lambda d: ten(pillow(d)), files),
            },
            "crops": {
                "ours": lambda: ours("crops"),
                pillow_name: lambda: timed(ten, decoded),
            },
        }
        for task, programs in tasks.items():
            times = {name: [] for name in programs}
            for _ in range(TURNS):
                for name, run in programs.items():
                    times[name] += run()
            own = statistics.median(times["ours"])
            for name, values in times.items():
                median = statistics.median(values)
                print(f"{task:7} {name:24} {median:8.1f} us a picture, {min(values):8.1f} best, ours is {median / own:.2f} x")


main()
