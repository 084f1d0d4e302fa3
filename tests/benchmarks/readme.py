"""Runs the Python snippets of README.md in one fresh process that sets no seed.

    python tests/benchmarks/readme.py            # the embedded backbone with its ImageNet weights
    python tests/benchmarks/readme.py --small    # a few layers in its place

The snippets run in the order of the README, in a temporary folder with `photos/`, the folder of a
search (made by `python tuning/search.py photos/`), and a module in the cache of tensorflow_hub.
Networks that would be downloaded have random weights, and long trainings are cut to two epochs.
Prints a line for each snippet. The exit status is the number of snippets that failed.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = "https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5"

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def snippets() -> list[tuple[str, str]]:
    """Returns the heading and the code of each Python snippet.

    Raises:
        ValueError: If a snippet stands under no heading.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^##+ ([^\n]+)\n(?:(?!^##).)*?```python\n(.*?)```", readme, re.S | re.M)
    if len(found) != readme.count("```python"):
        raise ValueError(f"README.md: {readme.count('```python')} snippets, {len(found)} headings.")
    return found


def main() -> int:
    """Runs the snippets, and returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a few layers as the backbone")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="snippets with it in the heading"
    )
    parser.add_argument("--folder", type=Path, help="where to run (default: a temporary folder)")
    args = parser.parse_args()
    chosen = [(heading, code) for heading, code in snippets() if args.only in heading]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(args.folder or folder)
        _write_photos(Path("photos"))
        _search(small=args.small)
        _write_modules()
        if args.small:
            _replace_embedded_backbone()
        _leave_out_downloads()
        failed = [heading for heading, code in chosen if not _runs(heading, code)]
        os.chdir(ROOT)
    print(f"{len(chosen) - len(failed)} snippets passed, {len(failed)} failed", flush=True)
    return len(failed)


def _write_photos(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng().integers(0, 256, (40, 40, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


def _search(*, small: bool) -> None:
    """Makes `runs/photos` with the command of the README."""
    program = "tests/small_lite.py" if small else "tuning/search.py"
    options = ["--trials", "2", "--epochs", "2", "--image-size", "64", "--output", "runs/photos"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    subprocess.run([sys.executable, ROOT / program, "photos/", *options], check=True, env=env)


def _write_modules() -> None:
    """Writes a SavedModel, and a module to where tensorflow_hub would have fetched it."""
    from hub_modules import save_plain, save_reusable

    save_plain(Path("module"), outputs=2)
    cache = Path("hub").absolute()
    os.environ["TFHUB_CACHE_DIR"] = str(cache)
    save_reusable(cache / hashlib.sha1(MODULE.encode()).hexdigest())


def _replace_embedded_backbone() -> None:
    from small_lite import small_lite

    from keras_transfer.backbones import efficientnet_lite

    efficientnet_lite.EfficientNetLite0 = small_lite


def _leave_out_downloads() -> None:
    """Gives random weights to the networks whose weights Keras would download."""
    from keras_transfer.backbones import registry

    load = registry.load

    def offline(source, *, weights="imagenet", input_shape=None):
        weights = weights if source == registry.DEFAULT else None
        return load(source, weights=weights, input_shape=input_shape)

    registry.load = offline


def _names() -> dict[str, object]:
    """Returns what a snippet takes for granted: images, datasets, histories of two runs."""
    import keras
    import numpy as np
    import tensorflow as tf

    # Images whose brightness tells their class: on noise alone no sweep finds a rate.
    labels = [0, 1] * 4
    noise = np.random.default_rng().integers(0, 120, (8, 150, 150, 3))
    images = (noise + 120 * np.reshape(labels, (8, 1, 1, 1))).astype("uint8")
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    curve = {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}
    return {
        "keras": keras,
        "images": images,
        "train": batches,
        "valid": batches,
        "history_a": curve,
        "history_b": curve,
    }


def _runs(heading: str, code: str) -> bool:
    # A snippet shows as many epochs as are useful; here two phases of one are enough.
    code = re.sub(r"epochs=\d+", "epochs=2", code)
    code = re.sub(r"BlockUnfreezer\(\{\d+:", "BlockUnfreezer({1:", code)
    start = time.monotonic()
    try:
        exec(compile(code, f"README.md, {heading}", "exec"), _names())
    except Exception:
        traceback.print_exc()
        print(f"FAILED  {heading}", flush=True)
        return False
    print(f"passed  {heading} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
