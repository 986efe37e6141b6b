"""Types are right: the stubs are those of the compiled half, and the package passes mypy."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import alitok

pytest.importorskip("mypy")
PACKAGE = Path(alitok.__file__).parent
CONFIG = Path(__file__).parents[1] / "pyproject.toml"


def run(*command, **options):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_should_have_the_stubs_of_the_compiled_half(tmp_path):
    run("mypy.stubtest", "alitok._alitok", "--mypy-config-file", CONFIG, cwd=tmp_path)


def test_should_pass_mypy(tmp_path):
    run("mypy", "--config-file", CONFIG, "--cache-dir", tmp_path, "-p", "alitok", cwd=tmp_path)


def test_should_be_typed_for_others(tmp_path):
    assert (PACKAGE / "py.typed").is_file()
    program = tmp_path / "program.py"
    program.write_text(
        "import alitok\n"
        "model: alitok.Model = alitok.load('mini', threads=2)\n"
        "images = model.generate(classes=['Flags'], count=4)\n"
        "tokens: str = model.encode(images)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", CONFIG, program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    lines = [line for line in done.stdout.splitlines() if "error" in line]
    assert "program.py:4" in lines[0] and len(lines) == 2, done.stdout


MODULES = (alitok, alitok.data, alitok.metrics, alitok.weights, alitok.torch, alitok.errors)


def public():
    for module in MODULES:
        yield module.__name__, module
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                for part, member in inspect.getmembers(thing):
                    own = str(getattr(member, "__module__", "")).startswith("alitok")
                    if not part.startswith("_") and (own or isinstance(member, property)):
                        if not isinstance(member, property) or part in vars(thing):
                            yield f"{module.__name__}.{name}.{part}", member


@pytest.mark.parametrize("name, thing", list(public()), ids=lambda value: value if isinstance(value, str) else "")
def test_should_say_what_it_is_and_what_it_takes(name, thing):
    text = inspect.getdoc(thing)
    assert text, name
    if inspect.isfunction(thing):
        given = [part for part in inspect.signature(thing).parameters if part not in ("self", "cls", "_")]
        missing = [part for part in given if f"{part}:" not in text]
        assert not missing, f"help({name}) says nothing of {missing}"
