"""Schedules in files: valid ones are read as written, errors name their line."""

import re

import keras
import pytest

from keras_transfer.training.schedule import Phase
from keras_transfer.training.schedule_file import ScheduleFileError, read_schedule


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a schedule from text or bytes, as the file schedule.yaml."""
    monkeypatch.chdir(tmp_path)

    def read_text(text):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "schedule.yaml").write_bytes(data)
        return read_schedule("schedule.yaml")

    return read_text


@pytest.fixture
def refused(read):
    """The errors of a file, as `(line, text)`."""

    def errors(text):
        with pytest.raises(ScheduleFileError) as caught:
            read(text)
        lines = str(caught.value).split("\n")
        matches = [re.fullmatch(r"schedule\.yaml, line (\d+): (.*)", line) for line in lines]
        return [(int(match[1]), match[2]) for match in matches]

    return errors


def test_a_file_with_every_field_is_read_as_phases_in_its_order(read):
    first, second = read("""
phases:
  - patience: 3
    which: [block4, "block3*"]
    freeze: 1
    learning_rate: 1e-5
    lr_decay: 0.5
    warmup: 100
    optimizer: RMSprop
    restore_best: true
  - {at_epoch: 0, which: all}
""")
    assert first == Phase(
        which=["block4", "block3*"],
        patience=3,
        freeze=1,
        learning_rate=1e-5,
        lr_decay=0.5,
        warmup=100,
        optimizer="RMSprop",
        restore_best=True,
    )
    assert second == Phase(which="all", at_epoch=0)


@pytest.mark.parametrize(
    "text",
    [
        "20: block5\n30: [block4, block3]\n",
        "phases:\n  20: block5\n  30: [block4, block3]\n",
        "- {at_epoch: 20, which: block5}\n- {at_epoch: 30, which: [block4, block3]}\n",
        "\ufeff%YAML 1.2\n---\n20: block5\r\n30:\r\n- block4\r\n- block3\r\n...\n",
    ],
    ids=["short", "short under phases", "bare list", "document marks, from Windows"],
)
def test_all_forms_say_the_same(read, text):
    assert read(text) == [
        Phase(which="block5", at_epoch=20),
        Phase(which=["block4", "block3"], at_epoch=30),
    ]


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "+1.e-5", "0.00001"])
def test_rates_are_read_as_people_write_them(read, text):
    (phase,) = read(f"- {{at_epoch: 1, learning_rate: {text}}}")
    assert phase.learning_rate == 1e-5


@pytest.mark.parametrize("text", ["on", "no", "1:30", "2024-01-01", "'010'", "'1e-5'", "5a"])
def test_texts_that_only_some_readers_take_for_something_else_are_texts(read, text):
    (phase,) = read(f"- {{at_epoch: 1, which: {text}}}")
    assert phase.which == text.strip("'")


def test_an_optimizer_with_arguments_is_built_for_each_phase(read):
    first, second = read(2 * "- {patience: 1, optimizer: {name: rmsprop, rho: 0.8}}\n")
    assert type(first.optimizer) is keras.optimizers.RMSprop
    assert first.optimizer.rho == 0.8
    assert first.optimizer is not second.optimizer


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("at_epoch", "1.5", "at_epoch must be whole numbers from 0 on. Received: 1.5"),
        ("at_epoch", "010", "Received: '010'"),  # 8 for some readers of YAML
        ("at_epoch", "true", "Received: True"),
        ("at_epoch", "9" * 5000, "."),
        ("patience", "0", "patience must be whole numbers from 1 on"),
        ("warmup", "-1", "warmup must be whole numbers from 0 on"),
        ("learning_rate", "'1e-5'", "`learning_rate` must be a positive number. Received: '1e-5'"),
        ("learning_rate", ".inf", "`learning_rate` must be a positive number"),
        ("lr_decay", "0", "`lr_decay` must be a positive number. Received: 0"),
        ("which", "0", "`which` must be a block's name, a glob, a list of these"),
        ("which", "[block5, 4]", "`which` must be a block's name"),
        ("freeze", "{a: b}", "`freeze` must be a block's name"),
        ("restore_best", "maybe", "`restore_best` must be true or false. Received: 'maybe'"),
        ("restore_best", "", "`restore_best` is empty. Write a value, or leave it out"),
        ("optimizer", "rmsprob", "rmsprob"),
        ("optimizer", "{rho: 0.9}", "its `name` and numbers, such as {name: sgd, momentum: 0.9}"),
        ("optimizer", "{name: sgd, momentum: 2}", "momentum"),
        ("optimizer", "{name: sgd, learning_rate: {class_name: x}}", "its `name` and numbers"),
        ("lr", "1", "unknown field 'lr'. Did you mean 'learning_rate'? Expected one of: which, "),
        ("whihc", "1", "unknown field 'whihc'. Did you mean 'which'?"),
        ("<<", "{}", "unknown field '<<'. Expected one of"),
    ],
)
def test_a_wrong_field_is_refused_with_its_line(refused, field, value, message):
    begins = "patience: 1" if field == "at_epoch" else "at_epoch: 1"
    ((line, text),) = refused(f"# a comment\nphases:\n- {begins}\n  {field}: {value}\n")
    assert line == 4
    assert message in text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("# a\nphases: []", 2, "expected a list of phases such as"),
        ("\nblock5", 2, "expected a list of phases .* Received: 'block5'"),
        ("phases:\n  - block5", 2, "expected a mapping of fields. Received: 'block5'"),
        ("phases:\n- at_epoch: 1\n\n- which: block5", 4, "When does .* begin"),
        ("phases:\n- at_epoch: 1\nmonitor: loss", 3, "unknown field 'monitor'"),
        ("which: block5", 1, "at_epoch must be whole numbers from 0 on. Received: 'which'"),
        ("20: block5\n30: block4\n20: block3", 3, "'20' is there already"),
        ("- at_epoch: 2\n  which: a\n  'which': b", 3, "'which' is there already"),
        ("- at_epoch: 1\n  which: [a", 2, "this is not YAML"),
        ("- at_epoch: 1\n  which: *block", 2, "aliases are refused"),
        ("- at_epoch: 1\n  which: !!python/object/apply:os.system [ls]", 2, "python/object"),
        (b"- at_epoch: 1\n  which: caf\xe9", 1, "utf-8"),
        (100_001 * " ", 1, "the file has more than 100,000 bytes"),
        (40_000 * "[", 1, "."),
    ],
)
@pytest.mark.slow
def test_a_file_that_is_no_schedule_is_refused(refused, text, line, message):
    ((found, received),) = refused(text)
    assert found == line
    assert re.search(message, received)


def test_all_errors_of_a_file_are_listed_in_their_order(refused):
    errors = refused("- which: 0\n  at_epoch: 1\n- at_epoch: 1.5\n  lr: 1\n- {at_epoch: -1}\n")
    assert [line for line, _ in errors] == [1, 3, 4, 5]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.yaml"):
        read_schedule(tmp_path / "nowhere.yaml")
