import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_backbone

import keras_transfer
from keras_transfer import TransferModel

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "keras_transfer").glob("*.py"))

# From the top of the package to its ground: a module imports from those below it only.
LAYERS = (
    "predict",
    "report",
    "examined",
    "report_files",
    "report_page",
    "classified",
    "grad_cam",
    "pixels",
    "page_frame",
    "page_parts",
    "averaged_views",
    "transfer_model",
    "exporting",
    "quantizing",
    "served",
    "replacing",
    "export_facts",
    "image_graph",
    "classifier_outputs",
    "one_training",
    "block_unfreezer",
    "find_learning_rate",
    "training_state",
    "plot_history",
    "history_plotter",
    "live_view",
    "trained_blocks",
    "callback_order",
    "stages",
    "step_functions",
    "blockwise_optimizer",
    "schedule_state",
    "model_blocks",
    "schedule_file",
    "yaml_file",
    "schedule",
    "optimizer_kind",
    "keeper",
    "stream",
    "fit_data",
    "feature_cache",
    "spot_check",
    "extraction_job",
    "passes",
    "places",
    "extraction",
    "kept_data",
    "kept_rows",
    "views",
    "flips",
    "cache_folder",
    "shares",
    "entry_writer",
    "array_file",
    "progress",
    "image_folder",
    "stratified",
    "image_dataset",
    "image_files",
    "system_files",
    "pipelines",
    "row_order",
    "losses",
    "labels",
    "frozen_backbone",
    "level_pooling",
    "backbones",
    "hub_module",
    "variable_group",
    "module_loading",
    "module_spec",
    "module_graph",
    "module_entry",
    "variable_groups",
    "hub_source",
    "hub_cache",
    "tar_folder",
    "saved_model_files",
    "efficientnet_lite",
    "torch_file",
    "preprocessing",
    "blocks",
    "fingerprints",
    "keepable",
    "optional_packages",
    "supported_keras",
    "config_limits",
    "memory",
    "processors",
    "console",
    "report_figures",
    "calibration_figure",
    "class_figure",
    "confusion_figure",
    "pictures_figure",
    "score_figure",
    "report_numbers",
    "plots",
    "compare_figure",
    "history_figure",
    "importance_figure",
    "parallel_figure",
    "parallel_axes",
    "rate_figure",
    "search_figure",
    "trial_facts",
    "intervals",
    "name_lists",
    "history_table",
    "whole_files",
    "marks",
    "panel_parts",
    "figure_layout",
    "figure_style",
    "diagnosis",
    "curve_facts",
)


def test_every_module_has_its_place_in_the_layers():
    assert {path.stem for path in MODULES} - {"__init__"} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_downward_only(module):
    tree = ast.parse((ROOT / "keras_transfer" / f"{module}.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_transfer"):
            parts = node.module.split(".")
            imported |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    above = set(LAYERS[: LAYERS.index(module) + 1])
    assert not imported & above


def test_init_only_re_exports_each_name_written_out():
    tree = ast.parse((ROOT / "keras_transfer" / "__init__.py").read_text())
    *first, re_exports = tree.body[1:]
    assert [ast.unparse(node).split()[0] for node in first] == ["import", "__version__", "_ALONE"]
    assert isinstance(re_exports, ast.If)  # not when one of the commands starts
    for node in re_exports.body:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.name == alias.asname for alias in node.names)


@pytest.mark.slow
def test_importing_the_package_makes_its_classes_known_to_keras(tmp_path):
    model = TransferModel(tiny_backbone(), 2)
    model.build((None, 16, 16, 3))
    model.save(tmp_path / "model.keras")
    # Whatever the order of imports, and although the arguments look like the command's.
    code = "import keras_transfer, keras; keras.saving.load_model('model.keras').summary()"
    arguments = ["-c", code, "-m", "keras_transfer.cli.predict"]
    subprocess.run([sys.executable, *arguments], check=True, cwd=tmp_path, capture_output=True)


def test_every_public_thing_has_a_docstring():
    for name in dir(keras_transfer):
        if not name.startswith("_") and callable(getattr(keras_transfer, name)):
            assert getattr(keras_transfer, name).__doc__, name


def test_import_leaves_heavy_packages_alone():
    # Keras itself imports matplotlib where it is installed.
    code = (
        "import sys, keras; before = set(sys.modules); import keras_transfer;"
        "print(*{'tensorflow_hub', 'keras_tuner', 'matplotlib'} & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd="/")
    assert done.stdout.split() == []


@pytest.mark.slow
def test_import_adds_little_to_that_of_keras():
    code = (
        "import time, keras; start = time.process_time(); import keras_transfer;"
        "print(time.process_time() - start)"
    )

    def seconds() -> float:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return float(done.stdout)

    assert any(seconds() < 0.4 for _ in range(3))  # of the processor; the machine may be busy


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
