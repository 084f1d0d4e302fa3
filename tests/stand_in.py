"""What a search runs in tests of the search itself: trials that take no time and train nothing."""

import os
import random
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras_tuner

from keras_transfer.cli.common import ended_by_signals, exit_status
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.metrics import Objective
from keras_transfer.search.settings import Settings
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.search.trial_runner import TrialRunner
from keras_transfer.search.trials import Trials

OBJECTIVE = Objective("val_loss", "min")


class StandInMember:
    def __init__(self, text: str) -> None:
        self.text = text

    def write(self, path: Path) -> None:
        Path(path).write_text(self.text)


class StandIn(keras_tuner.HyperModel):
    """Has the contract of TransferHyperModel. Its losses follow from the seed and the rate."""

    def __init__(self, seconds: float = 0.0, epochs: int = 3) -> None:
        super().__init__()
        self.seconds = seconds  # of an epoch
        self.epochs = epochs
        self.built: list[dict] = []
        self.before_fit = lambda number: None
        self.trained = None

    def build(self, hp):
        hp.Choice("pooling", ["avg", "max"])
        hp.Float("rate", 1e-4, 1e-2, sampling="log")
        with hp.conditional_scope("pooling", ["max"]):
            hp.Int("width", 1, 4)
        return SimpleNamespace(stop_training=False)

    def fit(self, hp, model, *args, epochs, callbacks, initial_epoch=0, **kwargs):
        self.built.append({**hp.values, "args": args, **kwargs})
        self.before_fit(len(self.built))
        history: dict[str, list[float]] = {"loss": [], "val_loss": [], "val_accuracy": []}
        for callback in callbacks:
            callback.set_model(model)
            callback.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
            time.sleep(self.seconds)
            logs = {"loss": hp.get("rate"), "val_loss": random.random() + hp.get("rate")}
            logs["val_accuracy"] = 1 - logs["val_loss"] / 2
            for name, value in logs.items():
                history[name].append(value)
            for callback in callbacks:
                callback.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        row = min(range(len(history["loss"])), key=lambda i: history["val_loss"][i])
        self.trained = SimpleNamespace(
            metrics={name: values[row] for name, values in history.items()},
            epoch=initial_epoch + row + 1,
            plotter=SimpleNamespace(
                history=history,
                epochs=list(range(initial_epoch, initial_epoch + len(history["loss"]))),
            ),
            member=StandInMember(f"{hp.get('rate')}"),
            model=model,
        )


def trials(output: Path, hypermodel: StandIn | None = None, **changes) -> Trials:
    arguments = {
        "oracle_name": "random",
        "objective": OBJECTIVE,
        "count": 4,
        "epochs": 3,
        "seed": 0,
        "output": Path(output),
        **changes,
    }
    return Trials(hypermodel or StandIn(), **arguments)


def study(output: Path, hypermodel: StandIn | None = None, count: int = 3) -> SimpleNamespace:
    """A `Study` without images, whose trials are stand-ins."""
    return SimpleNamespace(
        settings=Settings(output, trials=count, tuner="random", average=1),
        output=output,
        data=SimpleNamespace(stamps={}, train=None, valid=None),
        plan=TimePlan(),
        identity=lambda: {"seed": 0},
        costs=SimpleNamespace(note=lambda *facts: None, again=0.0),
        refits=False,
        trials=lambda on_begin=None, on_end=None: trials(
            output, hypermodel, count=count, on_begin=on_begin, on_end=on_end
        ),
        probe=lambda: Outcome(0, "probe", "completed", 1.0, 0.0, {}),
        objective=OBJECTIVE,
        fit_arguments={},
    )


def later() -> float:
    """A deadline that no test reaches."""
    return time.monotonic() + 1000


def ends_soon(hypermodel: StandIn, search: Trials) -> None:
    """Lets the time of a search end in its first trial, however long it took to come there."""

    def soon(number: int) -> None:
        search.deadline = time.monotonic() + 0.5

    hypermodel.before_fit = soon


def run_and_die(output: Path, number: int) -> None:
    """Runs a search in which a trial has this process killed: that of the rate in kills.txt."""
    hypermodel, rate = StandIn(), float((output / "kills.txt").read_text())

    def kill(count: int) -> None:
        if hypermodel.built[-1]["rate"] == rate:
            os.kill(os.getpid(), number)
            time.sleep(5)

    def run() -> int:
        trials(output, hypermodel).run()
        return 0

    hypermodel.before_fit = kill
    with ended_by_signals():
        sys.exit(exit_status("keras-transfer search", run))


def runner(folder: Path, seconds: float, deadly: dict[float, int]) -> TrialRunner:
    """Makes what runs stand-in trials in a process of an engine.

    Args:
        folder: Notes which process began which trial, in a file for each.
        seconds: Of an epoch.
        deadly: Rate of a trial to how often it kills its process.
    """
    hypermodel = StandIn(seconds)

    def note(count: int) -> None:
        rate = hypermodel.built[-1]["rate"]
        begun = len(list(folder.glob(f"{rate}-*")))
        (folder / f"{rate}-{time.time_ns()}-{os.getpid()}").touch()
        if begun < deadly.get(rate, 0):
            os.kill(os.getpid(), signal.SIGKILL)

    hypermodel.before_fit = note
    return TrialRunner(hypermodel, OBJECTIVE, 0, [(None, None)])
