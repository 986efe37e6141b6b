"""A model that reads prompts draws what the command line draws, and says what it cannot read."""

import json
import pickle
import subprocess

import numpy as np
import pytest
from conftest import FIXTURES

import alitok

TEXTS = FIXTURES / "text_tiny"
PROMPTS = json.loads((TEXTS / "prompts.json").read_text("utf-8"))["prompts"]


@pytest.fixture(scope="module")
def words_path(program, tmp_path_factory):
    """A tiny language model that has learned nothing, with the tokenizer of `released_tiny`."""
    folder = tmp_path_factory.mktemp("words")
    tokenizer, words = folder / "tokenizer", folder / "words"
    run = lambda *command: subprocess.run([program, *command], check=True, capture_output=True)  # noqa: E731
    run("import", FIXTURES / "released_tiny" / "tokenizer.pth", "--out", tokenizer)
    side = TEXTS / "image_side.safetensors"
    language = ["--language", TEXTS, "--image-side", side]
    run("import", *language, "--tokenizer", tokenizer, "--out", words)
    return words


@pytest.fixture(scope="module")
def words(words_path):
    return alitok.load(words_path)


def test_should_tell_that_it_reads_prompts(words, model):
    assert words.reads_prompts and not words.has_generator and words.classes == []
    assert "reads prompts" in repr(words)
    assert words.config["language"]["width"] == 48
    assert not model.reads_prompts and model.has_generator


@pytest.mark.parametrize("changes", [{}, {"guidance": 2.0, "temperature": 0.8, "top_k": 50}])
def test_should_draw_what_the_command_line_draws_of_prompts(
    program, words, words_path, tmp_path, changes
):
    prompts = PROMPTS[1:4]
    flags = [
        part for name, value in changes.items() for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [program, "generate", "--model", words_path, "--count", "2", "--seed", "7", *flags]
    command += ["--prompt", *prompts]
    for out in ("pictures.npz", "tokens.safetensors", "pictures"):
        subprocess.run([*command, "--out", tmp_path / out], check=True, capture_output=True)
    drawn = words.generate(prompts=prompts, count=2, seed=7, layout="NHWC", **changes)
    np.testing.assert_array_equal(drawn, np.load(tmp_path / "pictures.npz")["arr_0"])
    assert len({image.tobytes() for image in drawn}) == 6
    files = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(files) == 6
    for file, image in zip(files, drawn, strict=True):
        assert file.read_bytes() == alitok.data.encode_png(image)
    tokens = words.generate_tokens(prompts=prompts, count=2, seed=7, **changes)
    assert tokens.tobytes() in (tmp_path / "tokens.safetensors").read_bytes()
    finished = {
        event.picture: event
        for event in words.stream(prompts=np.array(prompts), count=2, seed=7, batch=4, **changes)
        if event.kind == "picture"
    }
    for number in range(6):
        np.testing.assert_array_equal(finished[number].tokens, tokens[number])
        np.testing.assert_array_equal(finished[number].image, drawn[number].transpose(2, 0, 1))


def test_should_draw_the_greedy_tokens_of_transformers(words):
    contents = (TEXTS / "expected.safetensors").read_bytes()
    start = 8 + int.from_bytes(contents[:8], "little")
    tensors = json.loads(contents[8:start])
    for guidance in (1, 4):
        drawn = words.generate_tokens(prompts=PROMPTS, top_k=1, guidance=guidance)
        for index, tokens in enumerate(drawn):
            first, end = tensors[f"greedy.{index}.{guidance}"]["data_offsets"]
            expected = np.frombuffer(contents[start + first : start + end], np.int64)
            np.testing.assert_array_equal(tokens, expected)


def test_should_complete_as_the_command_line_does(program, words, words_path, tmp_path):
    picture = FIXTURES / "released_tiny" / "image_0.png"
    command = [program, "complete", picture, "--model", words_path, "--rows", "12", "--seed", "3"]
    drawn = []
    for flags, prompts in (([], None), (["--prompt", "a red apple"], "a red apple")):
        out = tmp_path / f"complete{len(flags)}.npz"
        subprocess.run([*command, *flags, "--out", out], check=True, capture_output=True)
        drawn.append(words.complete(picture, 12, prompts=prompts, seed=3, layout="NHWC"))
        np.testing.assert_array_equal(drawn[-1], np.load(out)["arr_0"])
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(), "give prompts"),
        (dict(classes=0), "give it a prompt"),
        (dict(classes="Flags"), "give it a prompt"),
        (dict(classes="all"), "give it a prompt"),
        (dict(classes=0, prompts="a cat"), "not both"),
        (dict(prompts=""), "empty"),
        (dict(prompts=["a cat", " \n"]), "empty"),
        (dict(prompts=[]), "at least one prompt"),
        (dict(prompts=b"a cat"), "a prompt is a text"),
        (dict(prompts=["a cat", 1]), "a prompt is a text"),
        (dict(prompts=7), "prompts are texts"),
        (dict(prompts="a \ud800 cat"), "no character"),
        (dict(prompts="a " * 50_000), "at most 240"),
        (dict(prompts="a cat", count=0), "at least 1"),
        (dict(prompts="a cat", temperature=-1.0), "temperature"),
    ],
)
def test_should_say_what_is_wrong_with_prompts(words, arguments, says):
    for call in (words.generate, words.generate_tokens, words.stream):
        with pytest.raises(alitok.InputError, match=says):
            call(**arguments)


def test_should_refuse_prompts_for_a_model_of_classes(model, words, images):
    for call in (model.generate, model.generate_tokens, model.stream):
        with pytest.raises(ValueError, match="reads no prompts; ask for one of its classes"):
            call(prompts="a cat")
    with pytest.raises(ValueError, match="reads no prompts"):
        model.complete(images[0], 2, prompts="a cat")
    with pytest.raises(ValueError, match="as one prompt, not as 2"):
        words.complete(images[0], 2, prompts=["a cat", "a dog"])
    with pytest.raises(ValueError, match="not both"):
        model.complete(images[0], 2, classes=0, prompts="a cat")
    with pytest.raises(ValueError, match="no names for a language model"):
        alitok.state_dict(words, "generator")


def test_should_be_pickled_with_its_words(words):
    again = pickle.loads(pickle.dumps(words))
    expected = words.generate_tokens(prompts="a cat", seed=2)
    np.testing.assert_array_equal(again.generate_tokens(prompts="a cat", seed=2), expected)
