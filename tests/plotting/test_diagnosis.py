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
    elif kind == "noisy":
        noise = floor * draw.uniform(0.1, 0.4)
    elif kind == "plateau":
        noise = min(noise, 0.01 * floor)
    return {
        "loss": np.abs(training + draw.normal(0, 0.3 * noise, epochs)),
        "val_loss": np.abs(1.05 * validation + draw.normal(0, noise, epochs)),
    }


@pytest.mark.parametrize(
    "kind", ["short", "diverged", "overfitting", "improving", "noisy", "plateau"]
)
def test_each_kind_is_told_of_40_random_curves(kind):
    runs = [curves(kind, seed) for seed in range(40)]
    assert [diagnose(run, range(len(run["loss"]))).kind for run in runs] == [kind] * 40


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


@pytest.mark.parametrize("epochs", [5, 6, 7, 8, 10])
def test_a_short_loss_that_falls_in_each_epoch_improves_however_uneven_its_steps(epochs):
    losses = [falling(seed, epochs) for seed in range(40)]
    told = [diagnose({"loss": v, "val_loss": v + 0.01}, range(epochs)).kind for v in losses]
    assert told == ["improving"] * 40


@pytest.mark.parametrize(
    "validation",
    [
        [0.70, 0.68, 0.67, 0.60, 0.55, 0.53],
        [0.7030, 0.7029, 0.7024, 0.7019, 0.6993, 0.6983, 0.6966, 0.6945],
    ],
)
def test_uneven_steps_are_no_noise(validation):
    logs = {"loss": np.linspace(0.7, 0.36, len(validation)), "val_loss": validation}
    told = diagnose(logs, range(len(validation)))
    assert str(told) == "still improving: validation loss falls"


def test_a_plateau_is_claimed_of_a_flat_stretch_alone():
    flat = [0.9, 0.5, 0.41, 0.4, 0.401, 0.4, 0.401, 0.4]
    assert diagnose({"loss": flat}, range(8)).kind == "plateau"
    unsure = [0.700, 0.702, 0.690, 0.691, 0.670, 0.671]
    told = diagnose({"loss": unsure}, range(6))
    assert str(told) == "too short to say: training loss may fall, 6 epochs"


def test_one_value_that_is_not_finite_is_no_divergence_if_the_loss_comes_back():
    values = np.linspace(0.9, 0.4, 1000)
    values[501] = np.nan
    assert diagnose({"loss": values, "val_loss": values}, range(1000)).kind == "improving"
    values[501:] += 0.3  # finite again, but far from the best
    told = diagnose({"loss": np.linspace(0.9, 0.4, 1000), "val_loss": values}, range(1000))
    assert str(told) == "diverged: val_loss of epoch 502 is not finite"
    values[-1] = np.inf
    assert diagnose({"loss": values}, range(1000)).epoch == 501


def test_a_jump_in_the_last_epoch_alone_is_no_trend():
    training = np.linspace(0.7, 0.3, 16)
    validation = [*np.linspace(0.7, 0.4, 14), 0.399, 3.0]
    told = diagnose({"loss": training, "val_loss": validation}, range(16))
    assert str(told) == "too noisy to say: validation loss jumps by 2.6010 at its end"
    told = diagnose({"loss": training, "val_loss": [*validation, 3.1][1:]}, range(16))
    assert str(told) == "overfitting since epoch 15"
    assert diagnose({"loss": validation}, range(16)).kind == "noisy"


def test_a_loss_that_rises_again_is_no_plateau():
    training = [*np.linspace(1, 0.2, 10), *np.linspace(0.25, 0.8, 10)]
    told = diagnose({"loss": training}, range(20))
    assert (told.epoch, str(told)) == (10, "diverged: loss rises since epoch 11")
    logs = {"loss": [0.5] * 20, "val_loss": np.linspace(0.5, 1.08, 20)}
    assert str(diagnose(logs, range(20))) == "diverged: val_loss rises since epoch 2"
    training = [*np.linspace(1, 0.2, 10), *np.linspace(0.21, 0.35, 10)]
    assert str(diagnose({"loss": training}, range(20))) == "unstable: training loss rises again"


def test_noise_round_a_constant_is_no_trend():
    draw = np.random.default_rng(0)
    levels = [(0.01, 0.03), (0.01, 0.01), (0.003, 0.03), (0.05, 0.05)]  # of training, validation
    told = []
    for run in range(1000):
        epochs = (10, 40)[run // 4 % 2]
        loss, val_loss = (0.693 + draw.normal(0, level, epochs) for level in levels[run % 4])
        told.append(diagnose({"loss": loss, "val_loss": val_loss}, range(epochs)).kind)
    wrong = [kind for kind in told if kind in ("diverged", "overfitting", "improving")]
    assert len(wrong) <= 20


# The ends of validation losses that overfit with noise, each with the epoch of its minimum.
NOISY = {
    13: "0.4237 0.4037 0.3877 0.383 0.3768 0.3742 0.3637 0.3786 0.3753 0.3745 0.3848 0.388 0.3851 "
    "0.4028",
    11: "0.4124 0.3979 0.395 0.3848 0.3732 0.3863 0.377 0.3765 0.3881 0.3846 0.3864 0.3921 0.3981 "
    "0.4023",
    14: "0.4487 0.4386 0.4187 0.415 0.4115 0.4147 0.4094 0.4002 0.4112 0.4176 0.4181 0.4263 0.4308 "
    "0.4298",
}


@pytest.mark.parametrize("lowest", NOISY)
def test_overfitting_is_told_in_spite_of_noise(lowest):
    validation = [0.52, 0.5, 0.48, 0.465, 0.45, 0.43, *map(float, NOISY[lowest].split())]
    told = diagnose({"loss": np.geomspace(0.6, 0.3, 20), "val_loss": validation}, range(20))
    assert (told.kind, told.epoch + 1) == ("overfitting", lowest)


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
        (
            [0.7, 0.52, 0.46, 0.465, 0.5, 0.49],
            "too short to say: validation loss may rise, 6 epochs",
        ),
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
