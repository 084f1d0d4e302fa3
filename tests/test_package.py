import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_backbone
from importlinter.cli import lint_imports

import keras_transfer
from keras_transfer import TransferModel

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_transfer"


def test_imports_point_downward_only():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_every_room_is_in_the_contract():
    contract = (ROOT / "pyproject.toml").read_text().partition("[[tool.importlinter.contracts]]")[2]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", contract)} == set()


def test_no_folder_is_crowded():
    folders = [path.parent for path in PACKAGE.rglob("__init__.py")]
    crowded = {str(folder): n for folder in folders if (n := len([*folder.glob("*.py")])) > 18}
    assert crowded == {}


@pytest.mark.slow
def test_keras_finds_the_classes_whatever_is_imported_first(tmp_path):
    model = TransferModel(tiny_backbone(), 2)
    model.build((None, 16, 16, 3))
    model.save(tmp_path / "model.keras")
    for first in ("import keras_transfer, keras", "import keras, keras_transfer"):
        code = f"{first}; keras.saving.load_model('model.keras').summary()"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


@pytest.mark.slow
def test_each_module_can_be_the_first_that_is_imported():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    ]
    modules = sorted(modules)[::3]  # a third of them tells of a room that imports too early
    code = (
        "import importlib, os, sys\n"
        "import tensorflow\n"  # which takes seconds, and imports no Keras
        "for module in sys.argv[1:]:\n"
        "    if not (child := os.fork()):\n"
        "        importlib.import_module(module)\n"
        "        import keras\n"
        "        registered = keras.saving.get_registered_object\n"
        "        os._exit(not registered('keras_transfer>TransferModel'))\n"
        "    if os.waitpid(child, 0)[1]:\n"
        "        print(module)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [], done.stderr


@pytest.mark.slow
def test_the_package_itself_imports_no_keras():
    code = (
        "import sys, keras_transfer, keras_transfer.cli.main, keras_transfer.search;"
        "import keras_transfer.plotting, keras_transfer.serving.runtime;"
        "print(*{'keras', 'tensorflow', 'keras_tuner', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd="/")
    assert done.stdout.split() == []


def test_every_public_name_has_a_docstring_and_is_found():
    names = [name for name in dir(keras_transfer) if name in keras_transfer._MODULES]
    assert len(names) == len(keras_transfer._MODULES)
    assert [name for name in names if not getattr(keras_transfer, name).__doc__] == []
    with pytest.raises(AttributeError, match="has no attribute 'Unfreezer'"):
        _ = keras_transfer.Unfreezer


@pytest.mark.slow
def test_one_source_of_the_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", keras_transfer.__version__)
    assert 'path = "keras_transfer/__init__.py"' in (ROOT / "pyproject.toml").read_text()


def test_the_top_level_holds_only_what_was_agreed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    agreed = {"LICENSE", "README.md", "keras_transfer", "pyproject.toml", "tests", "tuning"}
    top = {line.split("/")[0] for line in listed if line}
    assert top <= agreed | {".ci", ".gitignore"}
