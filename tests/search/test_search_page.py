"""report.html of a search: sound HTML that needs nothing but itself, seen in a real browser."""

import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_report_page import Document, browse, in_a_browser, probed, words
from test_search_figures import searched
from white_charts import leave_figures_white

from keras_transfer.evaluation.examine import examine
from keras_transfer.evaluation.page import interval
from keras_transfer.plotting.history_table import write_csv
from keras_transfer.search.averaging.composition import Composition
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.answer import SearchAnswer
from keras_transfer.search.report.curves import curves_of
from keras_transfer.search.report.importance import Importance
from keras_transfer.search.report.leaderboard import ranked
from keras_transfer.search.report.page import NAMES, write_search_page
from keras_transfer.search.scoring import measures
from keras_transfer.search.space.space import Space
from keras_transfer.search.state.outcome import Outcome
from keras_transfer.utils.confidence_intervals import DASH, percent

LOSS = Objective("val_loss", "min")
EVIL = '<script>alert("x")</script> & <b>'
TRACE = f'Traceback (most recent call last):\n  File "{EVIL}", line 1\nValueError: {EVIL}'


def metrics(loss: float) -> dict[str, float]:
    return {"val_loss": loss, "val_accuracy": 1 - 0.4 * loss}


def outcomes(count: int = 30, folds: int = 3) -> list[Outcome]:
    """A probe, and trials of which some failed and some were stopped."""
    found = [Outcome(0, "probe", "completed", 0.5, 2.0, {"C": 1.0}, metrics=metrics(0.5),
                     folds=(metrics(0.5),) * folds)]  # fmt: skip
    for one in searched(count):
        number, values = one["trial"], {**one["hyperparameters"], EVIL: one["trial"]}
        name = f"{number:02d}"
        if not np.isfinite(one["score"]):
            found.append(
                Outcome(number, name, "failed", None, 1.0, values,
                        failure=TRACE.splitlines()[-1], traceback=TRACE)
            )  # fmt: skip
            continue
        score, status = one["score"], "stopped" if number % 5 == 0 else "completed"
        of_folds = tuple(metrics(score + 0.01 * (i - 1)) for i in range(folds))
        found.append(
            Outcome(number, name, status, score, 9.0, values, deviation=0.01 if folds else None,
                    metrics=metrics(score), epoch=3, folds=of_folds)
        )  # fmt: skip
    return found


def curves(folder, trials) -> None:
    for one in trials:
        if one.score is not None and one.trial:
            place = folder / "trials" / f"trial_{one.id}"
            place.mkdir(parents=True)
            logs = {"loss": [0.9, 0.5], "val_loss": [0.9, one.score], "learning_rate": [1e-3] * 2}
            write_csv(logs, range(2), place / "history.csv")


def winner():
    """A model that is wrong half of the time, on images with names that want escaping."""
    keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3)).astype("uint8")
    model = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.Flatten(),
                              keras.layers.Rescaling(1 / 255),
                              keras.layers.Dense(3, activation="softmax")])  # fmt: skip
    data = tf.data.Dataset.from_tensor_slices((pixels, np.arange(20) % 3)).batch(10)
    names = [EVIL, "a class", "class_2"]
    paths = [f"photos/{EVIL}/{i}.jpg" for i in range(20)]
    return examine(model, data, class_names=names, paths=paths, pictures=4, verbose=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    trials = outcomes()
    curves(folder, trials)
    settings = {"directory": EVIL, "backbone": ["a", "b"], "minutes": None, "seed": 0}
    settings["space"] = Space().to_dict()
    made_of = Composition((3, 1))
    write_search_page(folder, trials, LOSS, winner=winner(), made_of=made_of, settings=settings)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_page_has_all_its_sections_in_order(text):
    titles = re.findall(r'<h2 id="[a-z]+-title">(.*?)</h2>', text)
    assert titles == [
        "The search in numbers",
        "Leaderboard",
        "The search",
        "Parallel coordinates",
        "Importance of the hyperparameters",
        "Curves of the best five",
        "Each class",
        "Confusions of the winner",
        "Failures",
        "Settings and versions",
        "How this was computed",
    ]


def test_curves_of_trials_with_folds_say_which_fold(tmp_path):
    for folds, said in ((0, ""), (3, ", fold 1")):
        trials = outcomes(3, folds)
        curves(tmp_path / str(folds), trials)
        names = set(curves_of(tmp_path / str(folds) / "trials", trials))
        assert names == {f"trial {one.trial}{said}" for one in trials if one.trial and one.metrics}


@pytest.mark.slow
def test_the_best_five_name_the_trial_that_is_the_best_over_all_folds(tmp_path, monkeypatch):
    from keras_transfer.search.report import charts

    drawn = []
    monkeypatch.setattr(
        charts, "compare_figure", lambda logs, **kwargs: drawn.append((logs, kwargs))
    )
    monkeypatch.setattr(charts, "png_chart", lambda *_: None)
    trials = outcomes(5)
    curves(tmp_path, trials)
    best, second = charts.ranked(trials, LOSS)[:2]
    write_csv(
        {"val_loss": [0.0]}, range(1), tmp_path / "trials" / f"trial_{second.id}" / "history.csv"
    )
    charts.search_charts(trials, LOSS, Importance(5, 0.0, reason="few"), tmp_path / "trials")
    ((logs, told),) = drawn
    assert f"trial {second.trial}, fold 1" in logs
    assert f": trial {best.trial}, val_loss {best.score:.4f} ± 0.0100" in told["title"]


def test_the_page_is_one_file_without_scripts_and_all_names_are_text(text):
    document = Document(text)
    assert not document.all("script")
    assert not [a for _, attributes in document.tags for a in attributes if a.startswith("on")]
    assert all(image["src"].startswith("data:image/") for image in document.all("img"))
    assert all(image["alt"].strip() for image in document.all("img"))
    assert EVIL not in text
    assert "<b>" not in text
    names = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {link["href"][1:] for link in document.all("a")} <= set(names)
    scrolled = [div for div in document.all("div") if div.get("class") == "wide"]
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in scrolled)


def test_the_page_opens_with_the_answer(text):
    answer = text[text.index('<section id="answer"') : text.index("<nav")]
    seen = words(answer)
    assert re.search(r"How good [\d.]+ % right The average of trials 3, 1 on the 20 test", seen)
    assert re.search(r"How sure [\d.]+ to [\d.]+ % 95 % interval", seen)
    assert re.search(r"What it cost \d+ min.* for 30 trials: \d failed, \d stopped early", seen)
    assert answer.count("<img ") == 4  # the worst mistakes
    assert seen.index("Mistakes") < seen.index("What to do next")
    assert "failed: see the first traceback" in seen
    assert "<table" not in answer


def test_next_steps_follow_from_the_trials():
    tried = [
        Outcome(i, f"{i}", "completed", 1 - i / 20, 1.0, {"rate": float(i)}, epoch=5, epochs=5)
        for i in range(1, 20)
    ]
    probe = Outcome(0, "probe", "completed", 0.01, 1.0, {}, metrics=metrics(0.01))
    best = replace(tried[-1], metrics=metrics(0.05))
    answer = SearchAnswer(
        [probe, *tried[:-1], best], LOSS, None, "test", Composition((19,)), 1, None
    )
    steps = " ".join(answer.next_steps)
    assert "No trial is better than the probe" in steps
    assert "Trial 19 was best in its last epoch: give more --epochs." in steps
    assert "have rate among the highest that were tried: widen its range in --space" in steps
    assert "The best trial, 19, came late" in steps


@pytest.mark.usefixtures("_undrawn")
def test_no_number_is_minus_zero(tmp_path):
    trials = [
        Outcome(i, f"{i}", "completed", 0.5 + i * 1e-6, 1.0, {}, metrics=metrics(0.5 + i * 1e-6))
        for i in (0, 1)
    ]
    page = write_search_page(tmp_path, trials, LOSS).read_text()
    assert "gain in val_loss over the probe +0.0000" in words(page)
    assert not re.search(r"-0\.0+\b(?!\d)", words(page))


def test_the_numbers_tell_the_best_the_gain_and_the_test_score(text):
    best = min((o for o in outcomes() if o.trial and o.score is not None), key=lambda o: o.score)
    seen = words(text)
    assert f"trial {best.trial}, val_loss {best.score:.4f} ± 0.0100" in seen
    assert f"gain in val_loss over the probe {0.5 - best.score:+.4f}" in seen
    assert "t interval of the differences in 3 folds" in seen
    assert "On 20 test images the average of trials 3, 1 gets" in seen
    assert "The test images were used once, for the average of trials 3, 1." in seen


def test_the_numbers_tell_the_area_under_the_curve_that_the_terminal_tells(text):
    found = winner().found
    area = measures(found.true, found.probabilities).auc
    assert f"AUC, test {percent(area.value)} {interval(area)} %" in words(text)


def test_the_leaderboard_has_the_probe_the_best_and_the_rest_folded_away(text):
    board, rest = re.findall(r"<tbody>(.*?)</tbody>", text, flags=re.S)[1:3]
    rows = [words(row).split() for row in board.split("</tr>")[:-1]]
    assert rows[0][:2] == ["0", "(probe)"]
    assert len(rows) == 10
    ordered = [float(cells[cells.index("±") - 1]) for cells in rows[1:]]
    assert ordered == sorted(ordered)
    failed = sum(one.failed for one in outcomes())
    assert rest.count(">failed</td>") == failed > 0
    assert len(rest.split("</tr>")[:-1]) == 31 - 10


def test_the_settings_have_a_row_for_each_hyperparameter_as_it_would_be_written(text):
    section = text[text.index('<section id="settings"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", section, flags=re.S)
    told = set(map(words, rows))
    assert "space hidden {min: 32, max: 512, log: True, step: 2}" in told
    assert "space depth [0, 1]" in told
    assert "backbone [a, b]" in told
    assert f"minutes {DASH}" in told


@pytest.mark.slow
@in_a_browser
def test_the_settings_fit_a_narrow_window(tmp_path, text):
    script = (
        "<script>document.title = [...document.querySelectorAll('#settings .wide')]"
        ".map(e => e.scrollWidth - e.clientWidth).join()</script></body>"
    )
    page = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", script)
    dom, _, _ = browse(tmp_path, page, "--window-size=390,900")
    assert "<title>0</title>" in dom


def test_failures_show_the_first_traceback_line_by_line(text):
    (trace,) = re.findall(r"<pre>(.*?)</pre>", text, flags=re.S)
    assert trace.count("\n") == 2
    assert "&lt;script&gt;" in trace
    first = next(one for one in outcomes() if one.failed)
    assert f"The first traceback is that of trial {first.trial}:" in text


def test_pictures_lie_beside_the_page(folder, text):
    here = {path.name for path in folder.iterdir()} - {"trials"}
    assert here == set(NAMES) - {"importance.png"}
    assert "Too few trials to tell" in text
    for name in here - {"report.html"}:
        with Image.open(folder / name) as image:
            image.load()


@pytest.mark.usefixtures("_undrawn")
def test_a_page_of_nothing_but_failures_says_so_and_removes_old_pictures(tmp_path):
    trials = [one for one in outcomes() if one.failed]
    (tmp_path / "parallel.png").write_bytes(b"of an earlier page")
    (tmp_path / "mine.png").write_bytes(b"mine")
    path = write_search_page(tmp_path, trials, LOSS)
    seen = words(path.read_text())
    assert f"None of {len(trials)} trials has a score: all failed." in seen
    assert "Importance of the hyperparameters Too few trials to tell: 0 with a score" in seen
    assert "There is no probe to compare with." in seen
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "search.png", "mine.png"}


@pytest.fixture
def _undrawn(monkeypatch):
    """Spares the time of drawing, where a test does not look at it."""
    leave_figures_white(monkeypatch)


@pytest.mark.usefixtures("_undrawn")
def test_a_winner_that_was_trained_again_is_told_with_the_commas_of_a_sentence(tmp_path):
    made_of = Composition((2,), trained_again=76)
    path = write_search_page(tmp_path, outcomes(3), LOSS, winner=winner(), made_of=made_of)
    seen = words(path.read_text())
    assert "trained again on 76 images, gets" in seen
    assert "trained again on 76 images." in seen
    assert ",." not in seen


@pytest.mark.usefixtures("_undrawn")
def test_the_page_says_what_really_became_the_winner(tmp_path):
    trials = outcomes(12, folds=0)
    first, second, *_ = ranked(trials, LOSS)
    made_of = Composition((second.trial,), too_bad=(7,), lost=(first.trial,))
    path = write_search_page(tmp_path, trials, LOSS, winner=winner(), made_of=made_of, looks=2)
    seen = words(path.read_text())
    assert f"(without trial {first.trial}, whose weights are lost): trial {second.trial}" in seen
    assert f"On 20 test images trial {second.trial} gets" in seen
    assert f"The test images were used 2 times, now for trial {second.trial}." in seen
    assert f"Trial {second.trial} on the 20 test images." in seen
    assert f"best val_loss {second.score:.4f}" in seen
    assert f"(weights damaged or missing): trial {first.trial}." in seen
    assert "(validation scores too far behind): trial 7." in seen


@pytest.mark.usefixtures("_undrawn")
def test_a_winner_on_the_validation_images_is_called_too_good(tmp_path):
    trials = outcomes(12, folds=0)
    better = Outcome(0, "probe", "completed", 0.1, 1.0, {}, metrics=metrics(0.1))
    path = write_search_page(
        tmp_path, [better, *trials[1:]], LOSS, winner=winner(), split="validation", images=328
    )
    seen = words(path.read_text())
    assert "Trials were chosen by the validation images, so these numbers are too good." in seen
    assert "No trial is better than the probe: the search gained nothing over it." in seen
    assert "Newcombe" in seen
    assert "No trial left curves." in seen


@pytest.mark.usefixtures("_undrawn")
def test_importance_that_can_be_told_is_shown_with_its_numbers(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (40, 2)).round(3)
    trials = [
        Outcome(i, f"{i}", "completed", float(a), 1.0, {"a": float(a), "b": float(b)})
        for i, (a, b) in enumerate(values, 1)
    ]
    seen = words(write_search_page(tmp_path, trials, LOSS).read_text())
    assert re.search(r"From 40 trials a random forest explains \d\d% of the differences", seen)
    assert re.search(r"standard deviation over shuffles a [01]\.\d{3} 0\.\d{3} b -?0\.0", seen)
    assert (tmp_path / "importance.png").exists()


@pytest.mark.usefixtures("_undrawn")
def test_a_page_that_fails_leaves_the_one_before_as_it_was(tmp_path, monkeypatch):
    from keras_transfer.search.report import page as search_page

    write_search_page(tmp_path, outcomes(3), LOSS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(search_page, "write_together", fail)
    with pytest.raises(OSError, match="disk full"):
        write_search_page(tmp_path, outcomes(5), LOSS)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_to_tell_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"outcomes is empty.*after the first trial"):
        write_search_page(tmp_path, [], LOSS)


@pytest.mark.slow
@in_a_browser
def test_a_browser_loads_it_without_a_request_or_a_word_of_complaint(tmp_path, text):
    dom, console, asked = browse(tmp_path, text)
    assert (console, asked) == ([], [])
    assert dom.count("<img ") == text.count("<img ")


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_reached_by_day_and_by_night(tmp_path, text, scheme):
    dark = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    seen = probed(tmp_path, text, "--window-size=500,900", dark)
    assert seen["broken"] == 0
    assert seen["wider"] <= 0, json.dumps(seen)  # what is wide scrolls by itself
    assert (seen["ink"] > 600 and seen["page"] < 100) == (scheme == "dark")
    assert seen["reached"] == seen["meant"] > 20
