from pathlib import Path

import numpy as np
import pytest

from keras_transfer.plotting import diagnose
from keras_transfer.plotting.history_table import read_csv

# The original overfitting run: 30 epochs of a Dense head on frozen features.
LOSS = [0.4879, 0.3693, 0.3251, 0.2954, 0.2714, 0.2513, 0.2340, 0.2189, 0.2046, 0.1914, 0.1792]
LOSS += [0.1681, 0.158, 0.149, 0.140, 0.132]
VALIDATION = [0.4040, 0.3572, 0.3426, 0.3329, 0.3290, 0.3271, 0.3266, 0.3263, 0.3273, 0.3293]
VALIDATION += [0.3314, 0.3352, 0.3449, 0.3530, 0.3635, 0.3685]


def curves(kind: str, seed: int) -> dict[str, np.ndarray]:
    """Losses of a run of this kind, of random length, height, speed and noise."""
    draw = np.random.default_rng(seed)
    epochs = int(draw.integers(1, 5) if kind == "short" else draw.integers(12, 80))
    x = np.arange(epochs)
    start = draw.uniform(0.6, 3)
    floor = start * draw.uniform(0.1, 0.5)
    noise = start * 10 ** draw.uniform(-4, -2.2)

    def falling(share: float, to: float) -> np.ndarray:
        return to + (start - to) * np.exp(-x / (share * epochs))

    training = validation = falling(draw.uniform(0.03, 0.08), floor)  # a plateau
    if kind == "overfitting":
        turn = int(draw.uniform(0.2, 0.6) * epochs)
        lost = np.where(x > turn, (x - turn) / epochs, 0) ** draw.uniform(1, 1.6)
        training = falling(draw.uniform(0.08, 0.25), floor * 0.3)
        validation = falling(turn / 2.5 / epochs, floor) + lost * start * draw.uniform(0.3, 1.2)
    elif kind == "improving":
        training, validation = (falling(draw.uniform(0.4, 1.2), floor) for _ in range(2))
    elif kind == "diverged":
        turn = int(draw.uniform(0.2, 0.7) * epochs)
        risen = training + np.where(x > turn, (x - turn) / 3, 0) ** 2 * start
        training = validation = np.where(x > turn, np.nan, training) if seed % 2 else risen
    elif kind == "plateau":
        noise = min(noise, 0.01 * floor)
    return {
        "loss": np.abs(training + draw.normal(0, 0.3 * noise, epochs)),
        "val_loss": np.abs(1.05 * validation + draw.normal(0, noise, epochs)),
    }


@pytest.mark.parametrize(
    ("kind", "least"), [("short", 40), ("diverged", 40), ("overfitting", 40), ("improving", 40),
                        ("plateau", 32)],
)  # fmt: skip
def test_each_kind_is_told_of_40_random_curves(kind, least):
    runs = [curves(kind, seed) for seed in range(40)]
    told = [diagnose(run, range(len(run["loss"]))).kind for run in runs]
    assert told.count(kind) >= least


def test_the_original_run_overfits_after_epoch_8():
    told = diagnose({"loss": LOSS, "val_loss": VALIDATION}, range(16))
    assert (told.kind, told.epoch + 1) == ("overfitting", 8)
    assert str(told) == "overfitting since epoch 9"
    early = {"loss": LOSS[:5], "val_loss": VALIDATION[:5]}
    assert diagnose(early, range(5)).kind == "improving"


def test_validation_that_rises_with_training_is_no_overfitting():
    rising = [*VALIDATION[:8], *np.linspace(0.33, 0.4, 8)]
    assert diagnose({"loss": rising, "val_loss": rising}, range(16)).kind != "overfitting"


def test_the_epoch_counts_from_where_the_run_began():
    told = diagnose({"loss": LOSS, "val_loss": VALIDATION}, range(10, 26))
    assert told.epoch == 17


def test_where_nothing_is_validated_training_is_judged():
    assert str(diagnose({"loss": LOSS}, range(16))) == "still improving: training loss falls"
    assert diagnose({"loss": [0.5] * 16}, range(16)).kind == "plateau"


def test_epochs_without_validation_do_not_count():
    sparse = [v if epoch % 2 else None for epoch, v in enumerate(VALIDATION)]
    told = diagnose({"loss": LOSS, "val_loss": sparse}, range(16))
    assert (told.kind, told.epoch) == ("overfitting", 7)
    few = [v if epoch % 4 == 3 else None for epoch, v in enumerate(VALIDATION)]
    assert str(diagnose({"loss": LOSS, "val_loss": few}, range(16))) == (
        "too short to say: 4 of 5 epochs"
    )


def test_a_loss_that_is_not_finite_is_named_with_its_epoch():
    told = diagnose({"loss": LOSS, "val_loss": [*VALIDATION[:3], float("inf")] * 4}, range(16))
    assert (told.kind, told.epoch, str(told)) == (
        "diverged",
        3,
        "diverged: val_loss of epoch 4 is not finite",
    )


def test_without_any_loss_there_is_nothing_to_say():
    assert diagnose({"accuracy": [0.5] * 9}, range(9)).kind == "short"


def falling(seed: int, epochs: int) -> np.ndarray:
    """A loss that falls in each epoch, by steps of which one is up to six times the other."""
    draw = np.random.default_rng(seed)
    steps = draw.uniform(0.3, 1.7, epochs - 1) * draw.uniform(0.001, 0.05)
    return 0.7 - np.concatenate([[0], np.cumsum(steps)])


@pytest.mark.parametrize("epochs", [5, 7, 10])
def test_a_short_loss_that_falls_in_each_epoch_improves_in_most_cases(epochs):
    losses = [falling(seed, epochs) for seed in range(40)]
    told = [diagnose({"loss": v, "val_loss": v + 0.01}, range(epochs)).kind for v in losses]
    assert told.count("improving") >= 36


def test_a_flat_stretch_is_a_plateau():
    flat = [0.9, 0.5, 0.41, 0.4, 0.401, 0.4, 0.401, 0.4]
    told = diagnose({"loss": flat}, range(8))
    assert str(told) == "plateau: training loss no longer falls"


def test_one_value_that_is_not_finite_is_no_divergence_if_the_loss_comes_back():
    values = np.linspace(0.9, 0.4, 1000)
    values[501] = np.nan
    assert diagnose({"loss": values, "val_loss": values}, range(1000)).kind == "improving"
    values[-1] = np.inf
    assert diagnose({"loss": values}, range(1000)).epoch == 501


def test_a_loss_that_ends_above_its_beginning_diverged():
    logs = {"loss": [0.5] * 20, "val_loss": np.linspace(0.5, 1.08, 20)}
    assert str(diagnose(logs, range(20))) == "diverged: validation loss ends above its beginning"


def test_noise_round_a_constant_is_no_trend():
    draw = np.random.default_rng(0)
    levels = [(0.01, 0.03), (0.01, 0.01), (0.003, 0.03), (0.05, 0.05)]  # of training, validation
    told = []
    for run in range(400):
        epochs = (10, 40)[run // 4 % 2]
        loss, val_loss = (0.693 + draw.normal(0, level, epochs) for level in levels[run % 4])
        told.append(diagnose({"loss": loss, "val_loss": val_loss}, range(epochs)).kind)
    assert told.count("plateau") >= 360


def test_the_run_of_the_first_picture_of_the_readme_overfits():
    history, epochs, _ = read_csv(Path(__file__).parents[1] / "benchmarks" / "history.csv")
    assert str(diagnose(history, epochs)) == "overfitting since epoch 12"


@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        ([0.69, 0.55, 0.5, 0.55, 0.7, 0.95], "overfitting since epoch 4"),
        ([0.31, 0.28, 0.27, 0.272, 0.28, 0.285, 0.3], "overfitting since epoch 4"),
        ([0.6, 0.5, 0.45, 0.44, 0.47, 0.52, 0.58, 0.65], "overfitting since epoch 5"),
        ([0.6, 0.48, 0.45, 0.47, 0.52, 0.58], "overfitting since epoch 4"),
        ([0.70, 0.68, 0.67, 0.60, 0.55, 0.53], "still improving: validation loss falls"),
    ],
)
def test_what_a_few_epochs_show_is_told(validation, sentence):
    logs = {"loss": LOSS[: len(validation)], "val_loss": validation}
    assert str(diagnose(logs, range(len(validation)))) == sentence


@pytest.mark.parametrize(
    "loss", [[0.7, 0.6, 0.9, 1.5, 3, 8], [0.69, 0.7, 0.72, 0.75, 0.79], [1, 1e2, 1e4, 1e6, 1e8]]
)
def test_a_few_epochs_that_rise_in_each_diverged(loss):
    assert diagnose({"loss": loss}, range(len(loss))).kind == "diverged"
