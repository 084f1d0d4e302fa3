"""The trials of a search for TensorBoard: hyperparameters, metrics and curves (`--tensorboard`)."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api, api_pb2

# What `api.KerasCallback` ends a session with; `api` itself has no name for it.
from tensorboard.plugins.hparams.summary import session_end_pb

from keras_transfer.plotting.curves import is_finite
from keras_transfer.plotting.trials import categories_of, values_of
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.curves import read_curves
from keras_transfer.search.report.leaderboard import as_trials, hyperparameter_names, trials_of
from keras_transfer.search.state.outcome import PREFIX, Outcome
from keras_transfer.utils.atomic_files import folder_written_whole

_BEST, _EPOCH = "best", "epoch"  # tags: of the best epoch, and of each
_SEARCH = "search"  # the folder that says what there is to compare


def write_tensorboard(
    folder: Path, outcomes: Sequence[Outcome], objective: Objective, trials_folder: Path
) -> None:
    """Writes all trials: a run for each, and what TensorBoard's HParams page compares.

    Written twice, a run replaces the one before.

    Args:
        folder: The log folder (`tensorboard --logdir`).
        outcomes: The outcomes of all trials; the probe has no hyperparameters and is left out.
        objective: What the search aims at; comes first.
        trials_folder: The folder with the curves of the trials.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> write_tensorboard(Path("logs"), outcomes, Objective("val_loss", "min"), trials)
    """
    trials = trials_of(outcomes)
    logged = dict.fromkeys((objective.name, *(name for one in trials for name in one.metrics)))
    metrics = [api.Metric(f"{_BEST}/{name}", display_name=name) for name in logged]
    metrics.append(api.Metric(f"{_BEST}/seconds", display_name="seconds"))
    hparams = [_hparam(name, trials) for name in hyperparameter_names(trials)]
    with folder_written_whole(folder / _SEARCH) as run, _written(run):
        api.hparams_config(hparams=hparams, metrics=metrics)
    for outcome in trials:
        write_trial(folder, outcome, trials_folder)


def write_trial(folder: Path, outcome: Outcome, trials_folder: Path) -> None:
    """Writes one trial as a run; a failed one is marked as such and has no metrics.

    Args:
        folder: Where TensorBoard is to look.
        outcome: The outcome of the trial.
        trials_folder: The folder with its curves.
    """
    name = f"{PREFIX}{outcome.id}"
    with folder_written_whole(folder / name) as run, _written(run):
        values = {key: value for key, value in outcome.hyperparameters.items() if value is not None}
        api.hparams(values, trial_id=outcome.id)
        curves = read_curves(trials_folder, outcome)
        if curves is not None:
            _write_curves(*curves)
        if not outcome.failed:
            best = outcome.epoch or 0
            for metric, value in {**outcome.metrics, "seconds": outcome.seconds}.items():
                tf.summary.scalar(f"{_BEST}/{metric}", value, step=best)
        status = api_pb2.STATUS_FAILURE if outcome.failed else api_pb2.STATUS_SUCCESS
        tf.summary.experimental.write_raw_pb(session_end_pb(status).SerializeToString(), step=0)


def _write_curves(logs: dict[str, list[Any]], epochs: list[int]) -> None:
    for name, values in logs.items():
        for epoch, value in zip(epochs, values, strict=True):
            if is_finite(value):
                tf.summary.scalar(f"{_EPOCH}/{name}", value, step=epoch + 1)


@contextlib.contextmanager
def _written(run: Path) -> Iterator[None]:
    """Sends events to a folder within a block, and closes its file after it."""
    writer = tf.summary.create_file_writer(str(run))
    try:
        with writer.as_default():
            yield
    finally:
        writer.close()


def _hparam(name: str, trials: Sequence[Outcome]) -> api.HParam:
    """A hyperparameter with the values that it took."""
    values = [value for value in values_of(as_trials(trials), name) if value is not None]
    if categories_of(values):
        kinds = {type(value) for value in values}
        known = dict.fromkeys(values) if len(kinds) == 1 else dict.fromkeys(map(str, values))
        return api.HParam(name, api.Discrete(sorted(known)))
    if all(isinstance(value, int) for value in values):
        return api.HParam(name, api.IntInterval(min(values), max(values)))
    return api.HParam(name, api.RealInterval(float(min(values)), float(max(values))))
