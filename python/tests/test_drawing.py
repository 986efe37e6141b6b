"""Pictures and tokens are those of the command line, to the bit, whatever else is asked for at once."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import alitok


def cells(path, columns, count, side=64):
    grid = np.asarray(Image.open(path).convert("RGB"))
    gap = side // 32
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = gap + row * (side + gap), gap + column * (side + gap)
        yield grid[top : top + side, left : left + side]


def test_should_draw_the_readme_s_picture(model):
    classes = ["Smileys & Emotion", "Flags", "People & Body"]
    drawn = model.generate(classes, count=8, seed=1, layout="NHWC")
    for one, expected in zip(drawn, cells(ROOT / "docs/pictures/samples.png", 3, 24), strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    ("precision", "changes"),
    [
        ("f32", {}),
        ("bf16", {"guidance": 3.0, "guidance_power": 0.5}),
        ("int8", {"temperature": 0.9, "top_k": 50, "top_p": 0.9}),
    ],
)
def test_should_draw_what_the_command_line_draws(program, tmp_path, precision, changes):
    flags = [
        part for name, value in changes.items() for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [program, "generate", "--class", "Flags", "2", "--count", "3", "--seed", "7"]
    command += ["--precision", precision, *flags]
    for out in ("pictures.npz", "tokens.safetensors"):
        subprocess.run([*command, "--out", tmp_path / out], check=True, capture_output=True)
    model = alitok.load(precision=precision)
    drawn = model.generate(["Flags", 2], count=3, seed=7, layout="NHWC", **changes)
    np.testing.assert_array_equal(drawn, np.load(tmp_path / "pictures.npz")["arr_0"])
    tokens = model.generate_tokens(["Flags", 2], count=3, seed=7, **changes)
    contents = (tmp_path / "tokens.safetensors").read_bytes()
    assert tokens.tobytes() in contents


def test_should_encode_and_complete_as_the_command_line_does(program, model, images, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(alitok.data.encode_png(images[0]))
    run = lambda *command: subprocess.run([program, *command], check=True, capture_output=True)  # noqa: E731
    run("encode", picture, "--out", tmp_path / "t.safetensors")
    assert model.encode(picture).tobytes() in (tmp_path / "t.safetensors").read_bytes()
    for flags, classes in (([], None), (["--class", "Flags"], "Flags")):
        out = tmp_path / f"complete{len(flags)}.npz"
        run("complete", picture, "--rows", "3", "--count", "2", "--seed", "3", *flags, "--out", out)
        completed = model.complete(picture, 3, classes=classes, count=2, seed=3, layout="NHWC")
        np.testing.assert_array_equal(completed, np.load(out)["arr_0"])


def test_should_not_depend_on_batch_or_threads(images):
    for threads, batch in ((1, 1), (2, 3)):
        model = alitok.load(threads=threads)
        np.testing.assert_array_equal(model.generate([1, 3], count=2, seed=5, batch=batch), images)


def test_should_stream_the_same_pictures_row_by_row(model, images):
    _, rows, columns = model.token_layout
    seen = {number: [] for number in range(len(images))}
    finished = {}
    for event in model.stream([1, 3], count=2, seed=5, previews=2):
        seen[event.picture].append(event)
        if event.kind == "picture":
            finished[event.picture] = event
    for number, image in enumerate(images):
        np.testing.assert_array_equal(finished[number].image, image)
        decided = [len(event.tokens) for event in seen[number] if event.kind == "row"]
        assert decided[-1] == model.length and np.all(np.diff(decided) == columns)
        whole = finished[number].tokens
        for event in seen[number]:
            if event.kind == "row":
                np.testing.assert_array_equal(event.tokens, whole[: len(event.tokens)])
        heights = [event.image.shape[1] for event in seen[number] if event.kind == "preview"]
        patch = model.image_size[0] // rows
        assert heights == [2 * patch * (place + 1) for place in range(len(heights))] and heights


def test_should_stop_a_stream(model):
    with model.stream("all", count=50) as stream:
        first = next(stream)
        assert first.kind == "row"
    assert list(stream) == []
    stream = model.stream(0, count=3, batch=1)
    stream.cancel(1)
    ended = [event.picture for event in stream if event.kind == "picture"]
    assert 0 in ended and 2 in ended and 1 not in ended


def test_should_decode_what_it_encodes_as_reconstruct_does(model, images):
    tokens = model.encode(images)
    assert tokens.shape == (4, model.length) and tokens.dtype == np.int64
    through = model.reconstruct(images)
    np.testing.assert_array_equal(through.tokens, tokens)
    np.testing.assert_array_equal(through.originals, images)
    np.testing.assert_array_equal(through.images, model.decode(tokens))
    np.testing.assert_array_equal(through.psnr, alitok.metrics.psnr(images, through.images))
    assert through.psnr.min() > 20 and through.ssim.min() > 0.8
    causal = model.decode(tokens, decoder="causal")
    assert causal.shape == images.shape and (causal != through.images).any()


def test_should_tell_what_a_model_is(model):
    assert model.image_size == (64, 64) and model.length == 72
    assert len(model.classes) == 9 and "Flags" in model.classes
    assert model.config["generator"]["classes"] == 9
    assert "64 x 64" in repr(model)


def test_should_be_pickled_by_name_and_settings(images):
    import pickle

    model = pickle.loads(pickle.dumps(alitok.load(precision="bf16", threads=1)))
    assert model.precision == "bf16"


def test_should_report_progress(model):
    told = []
    model.generate(0, count=2, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (144, 144)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    told.clear()
    model.encode(model.generate(0), progress=lambda *state: told.append(state))
    assert told[-1] == (1, 1)


def test_should_raise_what_progress_raises(model):
    class Enough(Exception):
        pass

    def progress(done, total):
        raise Enough

    with pytest.raises(Enough):
        model.generate("all", count=100, progress=progress)
    with pytest.raises(Enough):
        model.encode(np.zeros((200, 64, 64, 3), np.uint8), progress=progress)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "work",
    [
        "model.generate('all', count=2000)",
        "model.generate_tokens('all', count=2000)",
        "list(model.stream('all', count=2000))",
        "model.encode(numpy.zeros((20000, 64, 64, 3), numpy.uint8))",
        "model.decode(numpy.zeros((20000, 72), int))",
        "alitok.TokenCache.build('bundled', model, folder + '/cache', views='ten_crop')",
    ],
)
def test_should_stop_on_ctrl_c(work, tmp_path):
    import signal
    import time

    script = f"""
import signal
import alitok, numpy
# A shell that runs the tests in the background lets them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = {str(tmp_path)!r}
model = alitok.load()
print("begun", flush=True)
try:
    {work}
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    # The work itself would take minutes.
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert process.returncode == 0


def test_should_let_other_threads_run(model):
    import threading
    import time

    turns = 0
    done = threading.Event()

    def turn():
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=turn)
    thread.start()
    begun = time.monotonic()
    model.generate_tokens("all", count=4)
    elapsed = time.monotonic() - begun
    done.set()
    thread.join()
    # With the lock held there would be a turn or two.
    assert turns > 20 * elapsed


def test_should_serve_several_threads_at_once(images):
    from concurrent.futures import ThreadPoolExecutor

    # Whose parts are not loaded yet.
    model = alitok.load(threads=2)
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: model.generate([1, 3], count=2, seed=5), range(4)))
    for one in drawn:
        np.testing.assert_array_equal(one, images)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_should_work_after_a_fork(model, images):
    import multiprocessing

    alitok.metrics.frechet_distance(np.random.rand(50, 8), np.random.rand(50, 8))
    stream = model.stream("all", count=50)
    next(stream)

    def child(connection):
        tokens = model.encode(images)
        drawn = model.generate([1, 3], count=2, seed=5)
        distance = alitok.metrics.frechet_distance(np.eye(8) + 1.0, np.eye(8))
        try:
            next(stream)
            refused = ""
        except alitok.UnavailableError as error:
            refused = str(error)
        connection.send((tokens, drawn, distance, refused))

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sender,))
    process.start()
    assert receiver.poll(60), "the child hangs"
    tokens, drawn, distance, refused = receiver.recv()
    process.join(30)
    assert process.exitcode == 0
    np.testing.assert_array_equal(tokens, model.encode(images))
    np.testing.assert_array_equal(drawn, images)
    assert distance > 0 and "forks" in refused
    stream.close()
