"""The run of a search, from the probe to the report."""

import argparse
import contextlib
import functools
import math
import os
import shutil
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.evaluation.examine import Examined, examine
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.plotting.figure_files import save_figure
from keras_transfer.plotting.history import history_figure
from keras_transfer.plotting.search import search_figure
from keras_transfer.search.averaging.winner import OnTest, Winner, keep, on_test, winner_of
from keras_transfer.search.budget.limit import OutOfTime, time_limit
from keras_transfer.search.budget.plan import TimePlan
from keras_transfer.search.budget.rehearsal import Rehearsal
from keras_transfer.search.distributed.chief import check_address, serve
from keras_transfer.search.distributed.local_workers import LocalWorkers, end_with_parent
from keras_transfer.search.distributed.role import role
from keras_transfer.search.distributed.worker import work
from keras_transfer.search.progress import Board, Sharing
from keras_transfer.search.report import leaderboard
from keras_transfer.search.report.curves import epochs_run, fold_of
from keras_transfer.search.report.page import PAGE, write_search_page
from keras_transfer.search.report.summary import summary, without_paths, write_summary
from keras_transfer.search.state import settings as asked
from keras_transfer.search.state.files import read_json, read_or_put_aside
from keras_transfer.search.state.lock import alone
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.search.state.settings import with_options
from keras_transfer.search.study import ACTIVATIONS, Study, settings
from keras_transfer.search.trials import FOLDER, Trials
from keras_transfer.utils.exit_codes import ALL_FAILED, DONE, INTERRUPTED

EXPORT = "the export"  # in messages, and in summary.json if there was no time for it


def run(args: argparse.Namespace, directory: Path | ImageFolder, began: float) -> int:
    """Runs a search in this process; returns its exit code.

    Args:
        args: Of the command line.
        directory: The folder of images, or the images themselves.
        began: When the search began, as `time.monotonic()`.

    Raises:
        ValueError: If arguments do not fit each other or what the output folder holds.
        ImportError: If a package is missing.
        OSError: If something cannot be read or written.
    """
    end_with_parent()
    if role() == "chief":
        check_address()
    is_worker = role() == "worker"
    plan = TimePlan() if args.minutes is None else TimePlan(began + 60 * args.minutes)
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            if not is_worker:  # whose chief holds the lock
                stack.enter_context(alone(args.output))

        try:
            with time_limit(plan.left):
                study = Study.of(args, directory, args.output, began, plan, before_writing=lock)
        except OutOfTime:
            return _no_time()
        return _work(study) if is_worker else _run_alone(study)


def _work(study: Study) -> int:
    """Runs the trials that a chief gives."""
    study.output.mkdir(parents=True, exist_ok=True)
    asked.begin(study.output, study.asked(), study.data.stamps)
    study.take_share()
    return work(study.trials(), study.data.train, study.data.valid, **study.fit_arguments)


def _run_alone(study: Study) -> int:
    """Runs a search whose lock this process holds."""
    went_on = asked.begin(study.output, study.asked(), study.data.stamps)
    if went_on and study.trials().outcomes:  # another machine may just have made the folder
        print(f"Going on with the search in {study.output}.", flush=True)
        _tell_failures(study.trials())
    try:
        trials, code = _trials(study)
    except KeyboardInterrupt:
        code, trials = INTERRUPTED, study.trials()
    except OutOfTime:
        code, trials = DONE, study.trials()
        print("The time is up. What was running is left out.", flush=True)
    told = len(trials.outcomes)
    if code == INTERRUPTED:
        when = f"after {told} trials" if told else "before the first trial ended"
        print(f"Interrupted {when}.", file=sys.stderr)
    if trials.best is not None and code in (DONE, INTERRUPTED):
        finish(study, trials, interrupted=code == INTERRUPTED)
        return DONE
    return code or _nothing(trials)


def _trials(study: Study) -> tuple[Trials, int]:
    """Runs the trials, here or by workers; what has ended lies in files whatever happens."""
    args, output = study.args, study.output

    def on_end(outcome: Outcome) -> None:
        board.on_end(outcome)
        update_plan()

    def update_plan() -> None:
        if rehearsals and args.workers == 1 and role() == "alone":  # no worker waits meanwhile
            rehearsals[0].renew()
        _plan(study, trials)
        set_deadline()

    def on_epoch() -> None:
        if not study.plan.scored:  # the trial has a score now, even if it is stopped
            study.plan.scored = True
            set_deadline()

    def set_deadline() -> None:
        trials.oracle.deadline = board.deadline = study.plan.deadline

    trials = study.trials(
        lambda begun: board.on_begin(begun.trial, begun.hyperparameters), on_end, on_epoch
    )
    trials.oracle  # noqa: B018 - makes whole what an earlier run has left
    _tell_grid(study, trials)
    sharing: list[Sharing] = []
    rehearsals: list[Rehearsal] = []

    def probe() -> None:
        started = time.monotonic()
        board.on_begin(0, {})
        outcome = study.probe()
        sharing.append(study.sharing(time.monotonic() - started))
        board.on_end(outcome)
        if not trials.oracle.exhausted():
            rehearsals.append(Rehearsal(study))
        update_plan()

    board = Board(
        study.objective,
        count=args.trials,
        outcomes=trials.outcomes,
        workers=args.workers,
        deadline=study.plan.deadline,
        sharing=lambda: sharing[0] if sharing else None,
        epochs_of=lambda outcome: epochs_run(output / FOLDER, outcome),
    )
    with board, time_limit(study.plan.left_for_trials):
        if role() == "chief":
            return trials, serve(trials, first=probe)
        if args.workers > 1:
            workers = LocalWorkers(_command(args), args.workers, output, devices=_devices())
            return trials, serve(trials, address="127.0.0.1:0", workers=workers, first=probe)
        probe()
        trials.run(study.data.train, study.data.valid, **study.fit_arguments)
    return trials, DONE


def _plan(study: Study, trials: Trials) -> None:
    """Updates the plan by the trials that have ended."""
    plan, data = study.plan, study.data
    best = [outcome for outcome in trials.ranked if not outcome.failed][: study.args.average]
    plan.trained = bool(best)
    plan.scored = plan.scored or plan.trained
    if study.args.final_fit and best:
        train = study.folds[0][0] if study.folds else data.train
        more = len(data.train_and_valid.labels) / len(train.labels)
        plan.final_fit = more * sum(o.seconds / max(1, len(o.folds)) for o in best)


def _tell_grid(study: Study, trials: Trials) -> None:
    """Warns of a grid that is too fine to be gone through, which KerasTuner does from one end."""
    args = study.args
    points = math.prod(len(list(one.values)) for one in trials.oracle.get_space().space)
    if args.tuner == "grid" and args.trials < points:
        warnings.warn(
            f"--tuner grid goes through its combinations in order, so that most hyperparameters "
            f"keep their first value in {args.trials} trials of up to {points:,}. Give fewer "
            "values in --space, more --trials, or --tuner random.",
            stacklevel=2,
        )


def _devices() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    count = len(tf.config.list_physical_devices("GPU"))
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _command(args: argparse.Namespace) -> list[str]:
    """What a worker of this search is started with."""
    own = ("--output", str(args.output), "--workers", "1")
    return [sys.executable, "-m", "keras_transfer", "search", *with_options(args.given, *own)]


def _tell_failures(trials: Trials) -> None:
    if failures := trials.failures:
        folders = ", ".join(trials.folder(one).name for one in failures)
        print(f"Trials that failed are not repeated; to have that, remove {folders}.", flush=True)


def _nothing(trials: Trials) -> int:
    if not trials.failures:
        return _no_time()
    last = trials.failures[-1].failure
    print(f"keras-transfer search: error: all trials failed: {last}", file=sys.stderr)
    return ALL_FAILED


def _no_time() -> int:
    told = "there was no time for a trial. Give more --minutes."
    print(f"keras-transfer search: error: {told}", file=sys.stderr)
    return ALL_FAILED


def finish(study: Study, trials: Trials, *, interrupted: bool = False) -> None:
    """Writes and prints what a search has come to.

    Args:
        study: The search.
        trials: Its trials, one of which at least has a score.
        interrupted: Whether there were to be more.
    """
    args, output, objective, plan = study.args, study.output, study.objective, study.plan
    outcomes = [_without_paths(one, output) for one in (study.probe(), *trials.outcomes)]
    leaderboard.print_leaderboard(outcomes, objective)
    leaderboard.write_leaderboard(output / leaderboard.FILE, outcomes, objective)
    save_figure(
        search_figure(leaderboard.as_trials(outcomes), score_name=objective.name),
        output / "search.png",
    )
    if args.tensorboard is not None:
        from keras_transfer.search.report.tensorboard import write_tensorboard

        write_tensorboard(args.tensorboard, outcomes, objective, output / FOLDER)
    winner, study = _winner(study, trials)
    _draw_best(study, trials, winner.best)
    model = keep(winner.model, output)
    export = functools.partial(model.export, output / "export" / "1", verbose=False)
    plan.in_time(EXPORT, export, after=plan.report)
    seen, tested = plan.in_time(
        "the test images", lambda: _look_once(study, model), after=plan.report
    ) or (None, None)
    looks = _earlier_looks(output) + (tested is not None)
    _write(study, outcomes, winner, seen, tested, {"interrupted": interrupted, "looks": looks})
    _tell(study, winner, tested, looks)
    if args.cache is None and not interrupted:
        shutil.rmtree(output / ACTIVATIONS, ignore_errors=True)


def _without_paths(outcome: Outcome, output: Path) -> Outcome:
    """Returns an outcome without absolute paths, for files that people share."""
    texts = ("hyperparameters", "failure", "traceback")
    return replace(
        outcome, **{name: without_paths(getattr(outcome, name), output) for name in texts}
    )


def _winner(study: Study, trials: Trials) -> tuple[Winner, Study]:
    """Returns the winner, and the study, without --final-fit if there was no time for that."""
    plan = study.plan
    if study.args.final_fit:
        after = plan.keep + plan.export + plan.test + plan.report
        winner = plan.in_time("--final-fit", lambda: winner_of(study, trials), after=after)
        if winner is not None:
            return winner, study
        study = replace(study, args=argparse.Namespace(**{**vars(study.args), "final_fit": False}))
    return winner_of(study, trials), study


def _draw_best(study: Study, trials: Trials, best: Outcome) -> None:
    path, name = study.output / "history.png", study.objective.name
    curves = trials.history(best)
    if curves is None:
        warnings.warn(f"Trial {best.trial} has no curves, so {path} is not drawn.", stacklevel=2)
        path.unlink(missing_ok=True)  # that of an earlier winner
        return
    title = f"trial {best.trial}{fold_of(best)}: {best} in epoch {best.epoch}"
    figure = history_figure(*curves, monitor=name, title=title if best.folds else None)
    save_figure(figure, path)


def _look_once(study: Study, model: TransferModel) -> tuple[Examined, OnTest | None]:
    """What the model makes of the test split; without one, of the validation split."""
    data = study.data
    split: Any = data.test if data.test is not None else data.valid
    paths = without_paths(split.paths, study.output)
    seen = examine(model, split.ordered, class_names=data.class_names, paths=paths, verbose=0)
    if data.test is None:
        return seen, None
    return seen, on_test(study, seen.found.true, seen.found.probabilities)


def _write(
    study: Study,
    outcomes: list[Outcome],
    winner: Winner,
    seen: Examined | None,
    tested: OnTest | None,
    told: dict[str, Any],
) -> None:
    args, output, data, made_of = study.args, study.output, study.data, winner.made_of
    images = None if args.folds else len(data.labels["valid"])
    write_page = functools.partial(
        write_search_page,
        output,
        outcomes,
        study.objective,
        winner=seen,
        split="test" if tested else "validation",
        made_of=winner.made_of,
        looks=told["looks"],
        images=images,
        settings=settings(args),
    )
    study.plan.in_time(PAGE, write_page)
    facts = {
        **settings(args),
        "classes": list(data.class_names),
        "images": data.counts,
        "trials_asked_for": args.trials,
        "average_of": list(made_of.trials),
        "left_out_of_average": sorted((*made_of.too_bad, *made_of.unlike)),
        "lost": list(made_of.lost),
        "trained_again": made_of.trained_again,
        **told,
        "no_time_for": study.plan.skipped,
        "seconds": round(time.monotonic() - study.began, 1),
    }
    best = next(one for one in outcomes if one.trial == winner.best.trial)
    content = summary(outcomes, study.objective, facts, best=best, images=images)
    if tested:
        content["test"] = {**tested.facts(), "looks": told["looks"]}
    write_summary(output / "summary.json", content)


def _earlier_looks(output: Path) -> int:
    """How often a search that goes on has looked at the test split before."""

    def read(path: Path) -> int:
        content = read_json(path)
        test = content["test"] or {"looks": 0}  # where earlier versions noted it
        return int(content.get("looks", test["looks"]))

    unknown = "how often the test images were used before is not known, and counts as once"
    looks = read_or_put_aside(output / "summary.json", read, unknown)
    return int((output / PAGE).exists()) if looks is None else looks


def _tell(study: Study, winner: Winner, tested: OnTest | None, looks: int) -> None:
    best, probe, name = winner.best, study.probe(), study.objective.name
    print(f"Best: trial {best.trial}, {best} in epoch {best.epoch}.")
    if not study.objective.better(best.score or 0.0, than=probe.score or 0.0):
        print(f"No trial did better in validation than the probe, {name} {probe.score:.4f}.")
    for sentence in winner.made_of.left_out():
        print(sentence)
    if study.data.test is None:
        print("There is no test split.")
    elif tested is not None:
        used = "once" if looks == 1 else f"{looks} times, as this search went on after a look at it"
        print(f"Test, used {used} ({winner.made_of}): {tested.measures}.")
        print(f"The probe on it: accuracy {tested.probe.accuracy.value:.2%}. {tested.paired}")
    if study.args.directory is None:
        from keras_transfer.search.demo_data import PUBLISHED

        told = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in PUBLISHED.items())
        print(f"Published on this data, on another split: {told}.")
    for skipped, file in ((EXPORT, study.output / "export" / "1"), (PAGE, study.output / PAGE)):
        if skipped in study.plan.skipped and file.exists():
            print(f"{file} is that of an earlier run, and of another model.")
    minutes = (time.monotonic() - study.began) / 60
    look_at = study.output if PAGE in study.plan.skipped else study.output / PAGE
    print(f"{minutes:.1f} minutes. Look at {look_at}.")
