"""The figures that docs/log.md has of the Python package, each side by side with its peer.

    python benchmarks/figures.py [NAME…]      # generate crops records import distance fid

`generate` needs the program (ALITOK_PROGRAM, or the target folder), `records` PyTorch, `crops` Pillow, `fid`
torch-fidelity. Nothing else should run meanwhile. It prints one JSON object a figure.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import alitok

ROOT = Path(__file__).resolve().parents[2]


def seconds(call, rounds):
    """Seconds of each call, after one that does not count."""
    call()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return found


def whole(command):
    """Seconds on the clock and of the processor that a process takes, and what it prints."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    elapsed, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return elapsed, worked, done.stdout


def told(name, **figures):
    print(json.dumps({"figure": name, **figures}), flush=True)


def generate(rounds=5, count=16):
    """A process that draws pictures and writes them as `.npz`: Python's beside the command line's, in pairs
    whose order changes."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = os.environ.get("ALITOK_PROGRAM", str(target / "release" / "alitok"))
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/out.npz"
        arguments = ["--class", "all", "--count", str(count), "--out", out]
        script = (
            "import time, numpy, alitok\n"
            "model = alitok.load()\n"
            "begun = time.perf_counter()\n"
            f"images = model.generate('all', count={count}, layout='NHWC')\n"
            "print(time.perf_counter() - begun)\n"
            f"numpy.savez({out!r}, arr_0=images)\n"
        )
        commands = {
            "python": [sys.executable, "-c", script],
            "program": [program, "generate", *arguments],
        }
        names = ("python", "program", "python_processor", "program_processor", "call")
        took = {name: [] for name in names}
        for number in range(rounds):
            for name in sorted(commands, reverse=number % 2 == 1):
                Path(out).unlink(missing_ok=True)
                elapsed, worked, printed = whole(commands[name])
                took[name].append(elapsed)
                took[name + "_processor"].append(worked)
                if name == "python":
                    took["call"].append(float(printed))
    paired = lambda name, other="program": statistics.median(  # noqa: E731
        ours / theirs for ours, theirs in zip(took[name], took[other], strict=True)
    )
    told(
        f"generate, {9 * count} pictures of mini, seconds",
        **{name: statistics.median(values) for name, values in took.items()},
        python_over_program=paired("python"),
        call_over_program=paired("call"),
        processor_ratio=paired("python_processor", "program_processor"),
        python_range=[min(took["python"]), max(took["python"])],
        program_range=[min(took["program"]), max(took["program"])],
    )


def crops(rounds=40):
    """Crops of a decoded photo of 500 x 375, one thread each, in turns."""
    from PIL import Image

    sys.path.insert(0, str(ROOT / "python" / "tests"))
    from test_data import center_crop_arr, noise, ten_crop_of_pillow

    image = noise(500, 375)
    array = np.asarray(image)
    for name, ours, theirs in (
        (
            "ten crops at 256",
            lambda: alitok.data.ten_crop(image, 256),
            lambda: ten_crop_of_pillow(image, 256),
        ),
        (
            "centre crop at 256, PIL image in",
            lambda: alitok.data.center_crop(image, 256),
            lambda: center_crop_arr(image, 256),
        ),
        (
            "centre crop at 256, array in",
            lambda: alitok.data.center_crop(array, 256),
            lambda: center_crop_arr(Image.fromarray(array), 256),
        ),
    ):
        assert np.array_equal(np.squeeze(ours()), np.squeeze(theirs()))
        both = [(seconds(ours, 5), seconds(theirs, 5)) for _ in range(rounds // 5)]
        mine = statistics.median(value for pair in both for value in pair[0])
        other = statistics.median(value for pair in both for value in pair[1])
        told(name, microseconds=mine * 1e6, pillow=other * 1e6, ratio=other / mine)


def records(pictures=20_000, batch=1024, rounds=5):
    """Records of 72 tokens through `__getitems__` and `collate`, shuffled, in one process."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/cache"
        alitok.TokenCache.build("bundled:heldout", alitok.load(), path, views="ten_crop")
        dataset = alitok.torch.TokenCacheDataset(path, views="all")
        order = torch.randint(len(dataset), (pictures,)).tolist()
        batches = [order[start : start + batch] for start in range(0, pictures, batch)]

        def read():
            for indices in batches:
                alitok.torch.collate(dataset.__getitems__(indices))

        took = seconds(read, rounds)
        whole = [pictures / one for one in took]
        told(
            "records of 72 tokens a second, batches of 1024",
            records_per_second=statistics.median(whole),
            range=[min(whole), max(whole)],
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch, shuffle=True, collate_fn=alitok.torch.collate
        )
        took = seconds(lambda: list(loader), rounds)
        told(
            "records a second through DataLoader, no worker",
            records_per_second=len(dataset) / statistics.median(took),
        )


def import_(rounds=21):
    """Milliseconds of `import alitok` beyond `import numpy`, whole processes in turns."""
    took = {"numpy": [], "alitok": []}
    for _ in range(rounds):
        for module, found in took.items():
            found.append(whole([sys.executable, "-c", f"import {module}"]))
    clock, processor = (
        {name: statistics.median(one[which] for one in found) * 1e3 for name, found in took.items()}
        for which in (0, 1)
    )
    told(
        "import, milliseconds",
        **clock,
        beyond=clock["alitok"] - clock["numpy"],
        processor_beyond=processor["alitok"] - processor["numpy"],
    )


def distance(width=2048, rounds=3):
    """The Fréchet distance of two statistics of 2048 features, on all threads and on one."""
    random = np.random.default_rng(0)
    rows = [random.normal(size=(4096, width)).astype(np.float32) + shift for shift in (0, 0.1)]
    both = [alitok.metrics.Statistics.of(part) for part in rows]
    for threads in (None, 1):
        took = seconds(lambda: alitok.metrics.frechet_distance(*both, threads=threads), rounds)
        told("Frechet distance of 2048 features", threads=threads, seconds=statistics.median(took))


def fid(count=10_000, width=2048, rounds=2):
    """FID of features in a `.npz` against a reference's mean and covariance in another, beside torch-fidelity.

    Both read the same files; what is left out is Inception, whose weights are a download: reading, mean and
    covariance of the features, and the distance. Theirs runs on all of NumPy's threads.
    """
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    random = np.random.default_rng(0)
    mixing = (random.normal(size=(width, width)) / width**0.5).astype(np.float32)
    rows = random.normal(size=(count, width)).astype(np.float32) @ mixing
    far = random.normal(size=(count, width)).astype(np.float32) @ mixing + np.float32(0.1)
    with tempfile.TemporaryDirectory() as folder:
        samples, reference = folder + "/samples.npz", folder + "/reference.npz"
        np.savez(samples, features=rows)
        np.savez(reference, mu=far.mean(0, dtype=np.float64), sigma=np.cov(far, rowvar=False))
        del rows, far

        def ours():
            distance = alitok.metrics.FrechetDistance()
            distance.set_reference(alitok.metrics.Statistics.read(reference))
            distance.update(np.load(samples)["features"])
            return distance.compute()

        def theirs():
            known = np.load(reference)
            features = torch.from_numpy(np.load(samples)["features"])
            statistics = fid_features_to_statistics(features)
            # They compare statistics of one type.
            statistics["mu"] = statistics["mu"].astype(np.float64)
            of = {"mu": known["mu"], "sigma": known["sigma"]}
            name = "frechet_inception_distance"
            return fid_statistics_to_metric(statistics, of, False)[name]

        took, worked, values = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}, {}
        for _ in range(rounds):
            for name, call in (("ours", ours), ("theirs", theirs)):
                begun, processor = time.perf_counter(), time.process_time()
                values[name] = call()
                took[name].append(time.perf_counter() - begun)
                worked[name].append(time.process_time() - processor)
    assert abs(values["ours"] - values["theirs"]) < 1e-3 * values["theirs"], values
    told(
        f"FID of {count} features of {width} in a .npz, seconds",
        ours=min(took["ours"]),
        torch_fidelity=min(took["theirs"]),
        ratio=min(took["theirs"]) / min(took["ours"]),
        processor_seconds={name: min(values) for name, values in worked.items()},
        values=values,
    )


FIGURES = {
    "generate": generate,
    "crops": crops,
    "records": records,
    "import": import_,
    "distance": distance,
    "fid": fid,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
