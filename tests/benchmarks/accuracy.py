"""Accuracy for the minutes: the search against plain Keras, on the same images and weights.

    python tests/benchmarks/accuracy.py                          # the demo data, seeds 0, 1, 2
    python tests/benchmarks/accuracy.py --minutes 8 --seeds 0    # a part of it
    python tests/benchmarks/accuracy.py --directory photos/      # any folder of class folders

Each row is a process of its own, one after the other, on EfficientNet-Lite0 at 224 px. Plain Keras
trains on the training split of the search, its schedule as long as the minutes last, and predicts
the mean over the flips. Each row looks at the test split once. All of it takes hours.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = {
    "guide": "Keras' guide: head, then top block",
    "all": "all blocks",
    "block4": "block4 up",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="class folders; default: the demo data")
    parser.add_argument("--flips", default=None, help="as for `keras-transfer search`")
    parser.add_argument("--minutes", type=float, nargs="*", default=[3, 8, 15])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="*", default=["search", *PLAIN])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(plain(args.row, args, args.minutes[0], args.seeds[0])))
        return
    rows: dict[tuple[str, float], list[dict]] = {}
    for seed in args.seeds:
        for minutes in args.minutes:
            for name in args.rows:
                if name != "search" and minutes < 8:
                    continue
                run = searched if name == "search" else plain_process
                found = run(args, name, minutes, seed)
                rows.setdefault((name, minutes), []).append(found)
                print(f"seed {seed}: {name}, {minutes:g} min: {found}", flush=True)
    table(rows)


def table(rows: dict[tuple[str, float], list[dict]]) -> None:
    print("\n| way | minutes | seconds | test accuracy, mean of seeds | each |")
    print("|---|---|---|---|---|")
    for (name, minutes), found in rows.items():
        accuracies = [one["accuracy"] for one in found]
        mean = statistics.fmean(accuracies)
        half = 1.96 * math.sqrt(mean * (1 - mean) / found[0]["images"])
        each = ", ".join(f"{one:.1%}" for one in accuracies)
        way = "keras-transfer search" if name == "search" else f"plain Keras, {PLAIN[name]}"
        seconds = statistics.fmean(one["seconds"] for one in found)
        print(f"| {way} | {minutes:g} | {seconds:.0f} | {mean:.1%} ± {half:.1%} | {each} |")
    searches = [found for (name, _), found in rows.items() if name == "search"]
    probes = [one["probe"] for found in searches for one in found]
    if probes:
        print(f"| probe (trial 0) | | | {statistics.fmean(probes):.1%} | |")


def searched(args: argparse.Namespace, name: str, minutes: float, seed: int) -> dict:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "keras_transfer", "search"]
        command += [str(args.directory)] if args.directory else []
        command += ["--flips", args.flips] if args.flips else []
        command += ["--minutes", f"{minutes:g}", "--seed", str(seed), "--output", f"{folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        test = json.loads(Path(folder, "run", "summary.json").read_text(encoding="utf-8"))["test"]
    return {
        "seconds": seconds,
        "accuracy": test["accuracy"],
        "probe": test["probe_accuracy"],
        "images": test["images"],
    }


def plain_process(args: argparse.Namespace, name: str, minutes: float, seed: int) -> dict:
    command = [sys.executable, __file__, "--row", name, "--minutes", f"{minutes:g}"]
    command += ["--seeds", str(seed)]
    command += ["--directory", str(args.directory)] if args.directory else []
    command += ["--flips", args.flips] if args.flips else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def plain(name: str, args: argparse.Namespace, minutes: float, seed: int) -> dict:
    """Trains as people do by hand: no part of this package but the weights, and the split."""
    began = time.monotonic()
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_transfer import image_folder
    from keras_transfer.backbones.efficientnet_lite import EfficientNetLite0
    from keras_transfer.search.demo_data import elpv_folder

    directory = args.directory or elpv_folder()
    flips = args.flips or ("none" if args.directory else "flips")
    data = image_folder(directory, image_size=224, seed=seed, verbose=0)
    keras.utils.set_random_seed(seed)
    base = EfficientNetLite0(input_shape=(224, 224, 3))
    layers = [keras.Input((224, 224, 3))]
    if flips != "none":
        mode = "horizontal" if flips == "mirror" else "horizontal_and_vertical"
        layers.append(keras.layers.RandomFlip(mode))
    classes = len(data.class_names)
    model = keras.Sequential(
        [
            *layers,
            keras.layers.Rescaling(1 / 128, offset=-127 / 128),
            base,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    train = data.train.prefetch(tf.data.AUTOTUNE)
    steps = len(data.train)

    def left() -> float:
        predicting = 4 * len(data.test.labels) * 0.02
        return 60 * minutes - (time.monotonic() - began) - predicting

    def compiled(schedule: keras.optimizers.schedules.LearningRateSchedule) -> None:
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.AdamW(schedule), loss, jit_compile=False)

    def fit(rate: float, seconds: float) -> None:
        """As many epochs of a cosine as fit into the seconds, as a first one of two tells."""
        compiled(keras.optimizers.schedules.CosineDecay(0.0, 10**6))
        weights = model.get_weights()
        model.fit(train.take(2), verbose=0)
        start = time.monotonic()
        model.fit(train.take(8), verbose=0)
        epoch = (time.monotonic() - start) / 8 * steps
        model.set_weights(weights)
        epochs = max(1, int((seconds - (time.monotonic() - start)) / epoch))
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, epochs * steps - steps // 2, warmup_target=rate, warmup_steps=steps // 2
        )
        compiled(schedule)
        model.fit(train, epochs=epochs, verbose=0)

    base.trainable = False
    if name == "guide":
        fit(1e-3, left() / 3)
    first = {"guide": "block7", "all": "stem", "block4": "block4"}[name]
    base.trainable = True
    names = [layer.name for layer in base.layers]
    place = next(i for i, one in enumerate(names) if one.startswith(first))
    for number, layer in enumerate(base.layers):
        frozen_statistics = name == "guide" and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= place and not frozen_statistics
    fit(1e-5 if name == "guide" else 5e-4, left())
    images = np.concatenate([x for x, _ in data.test.ordered])
    views = {"none": 1, "mirror": 2}.get(flips, 4)
    turned = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]][:views]
    scores = np.mean([model.predict(view, batch_size=16, verbose=0) for view in turned], axis=0)
    correct = scores.argmax(1) == data.test.labels
    return {
        "seconds": time.monotonic() - began,
        "accuracy": float(correct.mean()),
        "images": len(correct),
    }


if __name__ == "__main__":
    main()
