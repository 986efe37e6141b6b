"""Whatever is given: the right result, or an error that says what to do. Never a crash."""

import pathlib

import numpy as np
import pytest
from conftest import FIXTURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import alitok
from alitok._arrays import pictures_of, sources, token_rows

SETTINGS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FEW = settings(SETTINGS, max_examples=20)


@st.composite
def pictures(draw, dtypes=("uint8", "float32", "float64", "float16")):
    """Pictures in all layouts and strides, with what they hold as uint8 ``[n, height, width, 3]``."""
    count, height, width = (draw(st.integers(0 if side == 0 else 1, 7)) for side in range(3))
    # Sides that could be channels are not found out.
    height, width = height + 3, width + 3
    held = draw(arrays.arrays(np.uint8, (count, height, width, 3)))
    layout = draw(st.sampled_from(["NHWC", "NCHW"]))
    given = held if layout == "NHWC" else np.moveaxis(held, -1, 1)
    dtype = draw(st.sampled_from(dtypes))
    if dtype != "uint8":
        given = (given / 255).astype(dtype)
    for axis in range(given.ndim):
        step = draw(st.sampled_from([1, 2, -1]))
        if step == 2:
            wide = np.repeat(given, 2, axis)
            given = wide[tuple(slice(None, None, 2) if a == axis else slice(None) for a in range(4))]
        elif step == -1:
            flipped = np.flip(given, axis).copy()
            given = np.flip(flipped, axis)
    if draw(st.booleans()):
        given = np.asfortranarray(given)
    if draw(st.booleans()):
        given.flags.writeable = False
    return given, held, layout


@given(pictures())
@SETTINGS
def test_should_read_any_strides_and_types_alike(case):
    given, held, layout = case
    np.testing.assert_array_equal(pictures_of(given, layout), held)
    if 3 not in (given.shape[1 if layout == "NHWC" else 3],):
        np.testing.assert_array_equal(pictures_of(given, None), held)
    for (values, height, width), one in zip(sources(given, layout), held, strict=True):
        assert (height, width) == one.shape[:2] and values == one.tobytes()


@given(pictures(), st.integers(1, 12))
@FEW
def test_should_crop_what_it_reads_alike(case, size):
    given, held, layout = case
    expected = alitok.data.center_crop(list(held), size)
    assert expected.shape == (len(held), size, size, 3)
    got = alitok.data.center_crop(given, size, layout=layout)
    np.testing.assert_array_equal(got if layout == "NHWC" else np.moveaxis(got, 1, -1), expected)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(-5, 300), max_size=4),
    st.dictionaries(st.integers(), st.integers(), max_size=2),
    arrays.arrays(
        st.one_of(
            arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes(),
            arrays.complex_number_dtypes(), arrays.boolean_dtypes(), arrays.unicode_string_dtypes(),
            arrays.datetime64_dtypes(),
        ),
        arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    ),
)


@given(ANYTHING)
@SETTINGS
def test_should_take_or_refuse_anything_for_pictures(model, thing):
    try:
        tokens = model.encode(thing)
    except alitok.AlitokError as error:
        assert str(error)
    else:
        assert tokens.shape[1:] == (72,)


@given(ANYTHING)
@SETTINGS
def test_should_take_or_refuse_anything_for_tokens(model, thing):
    try:
        decoded = model.decode(thing)
    except (ValueError, alitok.AlitokError) as error:
        assert isinstance(error, alitok.AlitokError) and str(error)
    else:
        assert decoded.shape[1:] == (3, 64, 64)


@given(ANYTHING, ANYTHING)
@SETTINGS
def test_should_take_or_refuse_anything_for_features(one, other):
    measures = alitok.metrics
    for call in (
        lambda: measures.frechet_distance(one, other),
        lambda: measures.kernel_distance(one, other, subsets=2, size=2),
        lambda: measures.inception_score(one, splits=1),
        lambda: measures.precision_recall(one, other),
        lambda: measures.psnr(one, other),
        lambda: measures.ssim(one, other),
    ):
        try:
            call()
        except alitok.AlitokError as error:
            assert str(error)


@given(
    st.integers(-3, 2**70), st.integers(-(2**70), 2**70), st.floats(), st.floats(), st.floats(),
    st.integers(-3, 2**70), st.floats(),
)  # fmt: skip
@FEW
def test_should_take_or_refuse_any_setting(model, classes, seed, guidance, power, heat, k, p):
    settings = dict(
        seed=seed, guidance=guidance, guidance_power=power, temperature=heat, top_k=k, top_p=p
    )
    try:
        tokens = model.generate_tokens(classes, **settings)
    except alitok.InputError as error:
        assert str(error)
    else:
        assert tokens.shape == (1, 72) and tokens.min() >= 0


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (np.zeros((2, 3, 64, 3), np.uint8), "layout"),
        (np.zeros((64, 64, 4), np.uint8), "3 channels"),
        (np.zeros((1, 64, 64, 3), np.int32), "uint8"),
        (np.full((1, 64, 64, 3), 1.5), r"\[0, 1\].*divide"),
        (np.full((1, 64, 64, 3), -0.5), r"\[0, 1\]"),
        (np.full((1, 64, 64, 3), np.nan), "not a number"),
        (np.full((1, 64, 64, 3), np.inf), r"\[0, 1\]"),
        (np.zeros((1, 0, 64, 3), np.uint8), "at least one pixel"),
        (np.zeros((1, 64, 64, 3), complex), "complex128"),
        (np.zeros((1, 64, 64, 3), bool), "bool"),
        (np.zeros(5, np.uint8), "shape"),
    ],
)
def test_should_say_what_is_wrong_with_pictures(model, thing, says):
    with pytest.raises(ValueError, match=says):
        model.encode(thing)


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (np.zeros((2, 71), int), "71 tokens"),
        (np.full((1, 72), -1), "token -1"),
        (np.full((1, 72), 10**6), "token 1000000"),
        (np.full((1, 72), 2**64 - 1, np.uint64), "too large"),
        (np.zeros((1, 72)), "float64"),
        (np.zeros((1, 1, 72), int), "shape"),
    ],
)
def test_should_say_what_is_wrong_with_tokens(model, thing, says):
    with pytest.raises(ValueError, match=says):
        model.decode(thing)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(classes="Flag s of nowhere"), "no class"),
        (dict(classes=9), "no class 9"),
        (dict(classes=-1), "at least 0"),
        (dict(classes=True), "name or a number"),
        (dict(classes=1.5), "whole number"),
        (dict(classes=[]), "at least one class"),
        (dict(), "classes"),
        (dict(prompts="a cat"), "reads no prompts"),
        (dict(classes=0, prompts="a cat"), "not both"),
        (dict(classes=0, count=0), "at least 1"),
        (dict(classes=0, seed=-1), "at least 0"),
        (dict(classes=0, temperature="hot"), "number"),
        (dict(classes=0, temperature=-1.0), "temperature"),
        (dict(classes=0, top_p=2.0), "top"),
        (dict(classes=0, decoder="best"), "causal"),
        (dict(classes=0, layout="HWC"), "layout"),
        (dict(classes=0, batch=0), "batch"),
    ],
)
def test_should_say_what_is_wrong_with_a_request(model, arguments, says):
    with pytest.raises(ValueError, match=says):
        model.generate(**arguments)
    if "decoder" not in arguments and "layout" not in arguments:
        with pytest.raises(ValueError, match=says):
            model.stream(**arguments)


def test_should_say_what_is_wrong_with_a_model(tmp_path):
    with pytest.raises(alitok.FileError, match="config.json"):
        alitok.load(tmp_path)
    with pytest.raises(OSError):
        alitok.load("nowhere")
    with pytest.raises(alitok.InputError, match="f32, bf16, int8"):
        alitok.load(precision="f64")
    with pytest.raises(alitok.UnavailableError):
        alitok.load(device="cuda")
    with pytest.raises(alitok.InputError, match="no device"):
        alitok.load(device="tpu")
    with pytest.raises(alitok.InputError):
        alitok.load(threads=0)


def test_should_take_no_pictures_at_all(model):
    for nothing in ([], np.zeros((0, 64, 64, 3), np.uint8), iter(())):
        assert model.encode(nothing).shape == (0, 72)
    assert model.decode(np.zeros((0, 72), np.int64)).shape == (0, 3, 64, 64)
    assert token_rows(np.zeros((0, 72))).shape == (0, 72)


def test_should_take_files_and_pil_and_mixtures(model, tmp_path):
    photo = FIXTURES / "photo_0.png"
    array = alitok.data.read(photo)
    expected = model.encode(photo)
    image = Image.open(photo)
    for given in (
        str(photo), [photo], image, [image], array, [array], array[None], array / 255.0,
        np.moveaxis(array, -1, 0), image.convert("RGBA"),
    ):  # fmt: skip
        np.testing.assert_array_equal(model.encode(given), expected)
    mixed = model.encode([photo, image, array, array.astype(np.float32) / 255])
    np.testing.assert_array_equal(mixed, np.repeat(expected, 4, 0))
    with pytest.raises(alitok.InputError, match="pixels|size"):
        model.encode(photo, crop=False)
    with pytest.raises(alitok.FileError, match="nowhere"):
        model.encode(pathlib.Path("nowhere.png"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"text")
    with pytest.raises(alitok.FileError, match="broken.png"):
        model.encode([photo, broken])


def test_should_see_transparency_and_gray_as_files_show_them(tmp_path, model):
    rgba = np.arange(64 * 64 * 4, dtype=np.uint8).reshape(64, 64, 4)
    gray = rgba[..., 0].copy()
    for name, values, mode in (("rgba", rgba, "RGBA"), ("gray", gray, "L")):
        image = Image.fromarray(values, mode)
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(
            model.encode(image), model.encode(tmp_path / f"{name}.png"), err_msg=name
        )
    np.testing.assert_array_equal(model.encode(gray), model.encode(Image.fromarray(gray)))


def test_should_share_memory_with_torch(model, images):
    torch = pytest.importorskip("torch")
    shared = torch.from_dlpack(images)
    assert shared.data_ptr() == images.ctypes.data and shared.is_contiguous()
    tokens = model.encode(images)
    for given in (
        torch.from_numpy(images), shared.float() / 255, shared.double() / 255,
        (shared.double() / 255).requires_grad_(), shared.permute(0, 2, 3, 1),
    ):  # fmt: skip
        np.testing.assert_array_equal(model.encode(given), tokens)
    np.testing.assert_array_equal(model.decode(torch.from_numpy(tokens)), model.decode(tokens))
    # What came out is the caller's own.
    before = model.decode(tokens)
    changed = model.decode(tokens)
    changed[:] = 0
    np.testing.assert_array_equal(model.decode(tokens), before)


def test_should_take_what_has_only_dlpack(model, images):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    np.testing.assert_array_equal(model.encode(Foreign(images)), model.encode(images))
