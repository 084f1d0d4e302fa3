"""What the README shows, runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_lite import small_lite

import keras_transfer
from keras_transfer import FrozenBackbone

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_snippet_and_the_search_run_in_processes_that_set_no_seed(tmp_path):
    program = ROOT / "tests" / "benchmarks" / "readme.py"
    done = subprocess.run(
        [sys.executable, program, "--small", "--folder", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert f"{README.count('```python')} snippets passed" in done.stdout
    assert (tmp_path / "history.png").exists()
    assert (tmp_path / "serving" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_what_recipes_run_on_has_blocks_of_the_embedded_backbone():
    small = FrozenBackbone(small_lite(), preprocessing="lite")
    embedded = [block.name for block in FrozenBackbone(weights=None).blocks]
    assert [block.name for block in small.blocks] == ["stem", "block7", "top"]
    assert {block.name for block in small.blocks} < set(embedded)


def test_there_are_two_commands_and_ci_runs_the_second():
    assert 'pip install -e ".[demo]" && python tuning/search.py\n' in README
    assert 'pip install -e ".[test]" && pytest\n' in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_pictures_are_where_the_readme_shows_them():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).exists(), picture


def test_the_readme_names_every_public_class_and_function():
    public = [
        n for n in dir(keras_transfer) if n[0] != "_" and callable(getattr(keras_transfer, n))
    ]
    assert not [name for name in public if name not in README]
