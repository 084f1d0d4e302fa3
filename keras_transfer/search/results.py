"""The results of a search: its tables and pictures, the model, the export, the report."""

import functools
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_transfer.evaluation.examine import Examined, examine
from keras_transfer.models.transfer_model import TransferModel
from keras_transfer.plotting.figure_files import save_figure
from keras_transfer.plotting.history import history_figure
from keras_transfer.plotting.search import search_figure
from keras_transfer.search.averaging.winner import OnTest, Winner, keep, on_test, winner_of
from keras_transfer.search.report import leaderboard
from keras_transfer.search.report.curves import fold_of
from keras_transfer.search.report.page import PAGE, write_search_page
from keras_transfer.search.report.summary import summary, without_paths, write_summary
from keras_transfer.search.state.files import read_json, read_or_put_aside
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.search.study import ACTIVATIONS, Study
from keras_transfer.search.trials import FOLDER, Trials

EXPORT = "the export"  # in messages, and in summary.json if there was no time for it


def finish(study: Study, trials: Trials, *, interrupted: bool = False) -> None:
    """Writes and prints what a search has come to.

    Args:
        study: The search.
        trials: Its trials, one of which at least has a score.
        interrupted: Whether there were to be more.
    """
    settings, output, objective, plan = (
        study.settings,
        study.output,
        study.objective,
        study.plan,
    )
    outcomes = [_without_paths(one, output) for one in (study.probe(), *trials.outcomes)]
    leaderboard.print_leaderboard(outcomes, objective)
    leaderboard.write_leaderboard(output / leaderboard.FILE, outcomes, objective)
    if drawn := leaderboard.as_trials(outcomes):
        save_figure(search_figure(drawn, score_name=objective.name), output / "search.png")
    if settings.tensorboard is not None:
        from keras_transfer.search.report.tensorboard import write_tensorboard

        write_tensorboard(settings.tensorboard, outcomes, objective, output / FOLDER)
    winner, study = _winner(study, trials)
    _draw_best(study, trials, winner.best if winner.best.trial else trials.best)
    model = keep(winner.model, output)
    export = functools.partial(model.export, output / "export" / "1", verbose=False)
    plan.in_time(EXPORT, export, after=plan.report)
    seen, tested = plan.in_time(
        "the test images", lambda: _look_once(study, trials, model), after=plan.report
    ) or (None, None)
    looks = _earlier_looks(output) + (tested is not None)
    _write(study, outcomes, winner, seen, tested, {"interrupted": interrupted, "looks": looks})
    _tell(study, winner, tested, looks)
    if settings.cache is None and not interrupted:
        shutil.rmtree(output / ACTIVATIONS, ignore_errors=True)


def _asked(study: Study) -> dict[str, Any]:
    """Returns the settings as JSON has them, with paths relative to the output folder."""
    asked = without_paths(study.settings.to_dict(), study.output)
    return {**asked, "backbone": ",".join(asked["backbone"])}


def _without_paths(outcome: Outcome, output: Path) -> Outcome:
    """Returns an outcome without absolute paths, for files that people share."""
    texts = ("hyperparameters", "failure", "traceback")
    return replace(
        outcome, **{name: without_paths(getattr(outcome, name), output) for name in texts}
    )


def _winner(study: Study, trials: Trials) -> tuple[Winner, Study]:
    """Returns the winner, and the study, without --final-fit if there was no time for that."""
    plan = study.plan
    if study.settings.final_fit:
        after = plan.keep + plan.export + plan.test + plan.report
        winner = plan.in_time("--final-fit", lambda: winner_of(study, trials), after=after)
        if winner is not None:
            return winner, study
        study = replace(study, settings=replace(study.settings, final_fit=False))
    return winner_of(study, trials), study


def _draw_best(study: Study, trials: Trials, best: Outcome | None) -> None:
    path, name = study.output / "history.png", study.objective.name
    if best is None:  # the probe has no curves
        path.unlink(missing_ok=True)
        return
    curves = trials.history(best)
    if curves is None:
        warnings.warn(f"Trial {best.trial} has no curves, so {path} is not drawn.", stacklevel=2)
        path.unlink(missing_ok=True)  # that of an earlier winner
        return
    title = f"trial {best.trial}{fold_of(best)}: {best} in epoch {best.epoch}"
    figure = history_figure(*curves, monitor=name, title=title if best.folds else None)
    save_figure(figure, path)


def _look_once(
    study: Study, trials: Trials, model: TransferModel
) -> tuple[Examined, OnTest | None]:
    """What the model makes of the test split; without one, of the validation split."""
    data = study.data
    split: Any = data.test if data.test is not None else data.valid
    paths = without_paths(split.paths, study.output)
    seen = examine(model, split.ordered, class_names=data.class_names, paths=paths, verbose=0)
    if data.test is None:
        return seen, None
    return seen, on_test(study, trials, seen.found.true, seen.found.probabilities)


def _write(
    study: Study,
    outcomes: list[Outcome],
    winner: Winner,
    seen: Examined | None,
    tested: OnTest | None,
    facts: dict[str, Any],
) -> None:
    output, data, made_of = study.output, study.data, winner.made_of
    asked = _asked(study)
    images = None if study.settings.folds else len(data.labels["valid"])
    write_page = functools.partial(
        write_search_page,
        output,
        outcomes,
        study.objective,
        winner=seen,
        split="test" if tested else "validation",
        made_of=winner.made_of,
        looks=facts["looks"],
        images=images,
        settings=asked,
    )
    study.plan.in_time(PAGE, write_page)
    content = {
        **asked,
        "classes": list(data.class_names),
        "images": data.counts,
        "trials_asked_for": study.settings.trials,
        "average_of": list(made_of.trials),
        "left_out_of_average": sorted((*made_of.too_bad, *made_of.heads)),
        "lost": list(made_of.lost),
        "trained_again": made_of.trained_again,
        **facts,
        "no_time_for": study.plan.skipped,
        "seconds": round(time.monotonic() - study.began, 1),
    }
    best = next(one for one in outcomes if one.trial == winner.best.trial)
    content = summary(outcomes, study.objective, content, best=best, images=images)
    if tested:
        content["test"] = {**tested.facts(), "looks": facts["looks"]}
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
    if not best.trial:
        print(f"Best: the probe, {best}.")
    else:
        print(f"Best: trial {best.trial}, {best} in epoch {best.epoch}.")
    if best.trial and not study.objective.better(best.score or 0.0, than=probe.score or 0.0):
        print(f"No trial did better in validation than the probe, {name} {probe.score:.4f}.")
    for sentence in winner.made_of.left_out():
        print(sentence)
    if study.data.test is None:
        print("There is no test split.")
    elif tested is not None:
        used = (
            "once" if looks == 1 else f"{looks} times, as this search was resumed after a first use"
        )
        print(f"Test, used {used} ({winner.made_of}): {tested.measures}.")
        print(f"The probe on it: accuracy {tested.probe.accuracy.value:.2%}. {tested.paired}")
    if study.settings.directory is None:
        from keras_transfer.search.demo_data import PUBLISHED

        published = ", ".join(f"{name} {value:.2%}" for name, value in PUBLISHED.items())
        print(f"Published on this data, on another split: {published}.")
    for skipped, file in ((EXPORT, study.output / "export" / "1"), (PAGE, study.output / PAGE)):
        if skipped in study.plan.skipped and file.exists():
            print(f"{file} is that of an earlier run, and of another model.")
    minutes = (time.monotonic() - study.began) / 60
    look_at = study.output if PAGE in study.plan.skipped else study.output / PAGE
    print(f"{minutes:.1f} minutes. Look at {look_at}.")
