"""The tutorial runs from its first cell to its last."""

from pathlib import Path

import pytest

import alitok

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

TUTORIAL = Path(__file__).parents[1] / "examples" / "tutorial.ipynb"


def test_should_run_the_tutorial(tmp_path):
    notebook = nbformat.read(TUTORIAL, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


def test_should_have_examples_that_run():
    import doctest

    import alitok._model

    for module in (alitok, alitok._model):
        assert doctest.testmod(module).failed == 0
