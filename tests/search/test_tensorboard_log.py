"""Trials for TensorBoard, read back by what TensorBoard's own HParams page reads them with."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, get_experiment
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from keras_transfer.plotting.history_table import write_csv
from keras_transfer.search.metrics import Objective
from keras_transfer.search.report.tensorboard import write_tensorboard
from keras_transfer.search.state.outcome import Outcome

LOSS = Objective("val_loss", "min")


@pytest.fixture(scope="module")
def outcomes():
    values = [
        {"pooling": "avg", "hidden": 64, "learning_rate": 1e-3, "augment": True},
        {"pooling": "max", "hidden": 128, "learning_rate": 1e-2, "augment": False, "lr_decay": 0.5},
        {"pooling": "max", "hidden": 64, "learning_rate": 1e-4, "augment": True},
    ]
    return [
        Outcome(0, "probe", "completed", 0.6, 1.0, {"C": 1.0}, metrics={"val_loss": 0.6}),
        Outcome(1, "a", "completed", 0.5, 9.0, values[0], metrics={"val_loss": 0.5}, epoch=2),
        Outcome(2, "b", "stopped", 0.4, 8.0, values[1], metrics={"val_loss": 0.4}, epoch=3),
        Outcome(3, "c", "failed", None, 1.0, values[2], failure="ValueError: no"),
    ]


@pytest.fixture(scope="module")
def folder(outcomes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    trial = folder / "output" / "trial_a"
    trial.mkdir(parents=True)
    logs = {"val_loss": [0.7, 0.5, float("nan")], "phase": ["head", "head", "top"]}
    write_csv(logs, range(3), trial / "history.csv")
    for _ in range(2):  # a search that goes on writes its trials again
        write_tensorboard(folder / "logs", outcomes, LOSS, trial.parent)
    return folder / "logs"


def provider(folder):
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    return events, MultiplexerDataProvider(events, str(folder))


def test_tensorboard_reads_hyperparameters_metrics_and_status_of_each_trial(folder):
    _, data = provider(folder)
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        include_metrics=True,
    )
    request.col_params.add(metric=api_pb2.MetricName(tag="best/val_loss"))
    answer = Handler(RequestContext(), Context(TBContext(data_provider=data)), "", request).run()
    assert answer.total_size == 3
    found = {}
    for group in answer.session_groups:
        (session,) = group.sessions
        metrics = {value.name.tag: (value.value, value.training_step)
                   for value in session.metric_values}  # fmt: skip
        found[group.name] = (dict(group.hparams), session.status, metrics)
    values, status, metrics = found["b"]
    assert values["pooling"].string_value == "max"
    assert values["hidden"].number_value == 128
    assert values["lr_decay"].number_value == 0.5
    assert values["augment"].bool_value is False
    assert status == api_pb2.STATUS_SUCCESS
    assert metrics["best/val_loss"] == (pytest.approx(0.4), 3)
    assert metrics["best/seconds"][0] == pytest.approx(8)
    values, status, metrics = found["c"]
    assert "lr_decay" not in values
    assert (status, metrics) == (api_pb2.STATUS_FAILURE, {})


def test_tensorboard_knows_the_ranges_and_the_objective_first(folder):
    context = Context(TBContext(data_provider=provider(folder)[1]))
    experiment = get_experiment.Handler(
        RequestContext(), context, "", api_pb2.GetExperimentRequest(include_metrics=True)
    ).run()
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == {"pooling", "hidden", "learning_rate", "augment", "lr_decay"}
    assert [v.string_value for v in infos["pooling"].domain_discrete.values] == ["avg", "max"]
    assert infos["hidden"].domain_interval.max_value == 128
    assert infos["learning_rate"].domain_interval.min_value == 1e-4
    assert [info.name.tag for info in experiment.metric_infos] == ["best/val_loss", "best/seconds"]


def test_curves_are_scalars_at_epochs_counted_from_1(folder):
    events, _ = provider(folder)
    assert sorted(events.Runs()) == ["search", "trial_a", "trial_b", "trial_c"]
    points = events.Tensors("trial_a", "epoch/val_loss")
    assert [point.step for point in points] == [1, 2]
    values = [float(np.frombuffer(p.tensor_proto.tensor_content, "float32")[0]) for p in points]
    assert values == pytest.approx([0.7, 0.5])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
