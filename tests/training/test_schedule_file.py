"""Schedules in files: what they say is what is read, and what is unclear is refused by its line."""

import dataclasses
import re

import keras
import pytest

from keras_transfer.training import schedule_file
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
        found = [
            re.fullmatch(r"schedule\.yaml, line (\d+): (.*)", line)
            for line in str(caught.value).split("\n")
        ]
        return [(int(match[1]), match[2]) for match in found]

    return errors


@pytest.fixture
def refused_value(refused):
    """The one error of a phase with one field set; it must be in the field's line, line 4."""

    def error(field, value):
        begins = "patience: 1" if field == "at_epoch" else "at_epoch: 1"
        ((line, text),) = refused(f"# a comment\nphases:\n- {begins}\n  {field}: {value}\n")
        assert line == 4
        return text

    return error


def value(read, field, text):
    begins = "patience: 1" if field == "at_epoch" else "at_epoch: 1"
    (phase,) = read(f"- {begins}\n  {field}: {text}\n")
    return getattr(phase, field)


# What is read.


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
        optimizer="rmsprop",
        restore_best=True,
    )
    assert second == Phase(which="all", at_epoch=0)


def test_every_field_of_a_phase_can_be_written():
    assert list(schedule_file._FIELDS) == [field.name for field in dataclasses.fields(Phase)]


@pytest.mark.parametrize(
    "text",
    [
        "20: block5\n30: [block4, block3]\n",
        "phases:\n  20: block5\n  30: [block4, block3]\n",
        "- {at_epoch: 20, which: block5}\n- {at_epoch: 30, which: [block4, block3]}\n",
        "%YAML 1.2\n---\n20: block5\n30:\n- block4\n- block3\n...\n",
        "\ufeff20: block5\r\n30: [block4, block3]\r\n",
    ],
    ids=["short", "short under phases", "bare list", "document marks", "from Windows"],
)
def test_all_forms_say_the_same(read, text):
    assert read(text) == [
        Phase(which="block5", at_epoch=20),
        Phase(which=["block4", "block3"], at_epoch=30),
    ]


def test_a_path_object_is_taken_too(tmp_path):
    path = tmp_path / "schedule.yml"
    path.write_text("20: block5")
    assert read_schedule(path) == [Phase(which="block5", at_epoch=20)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1e-5", 1e-5),
        ("1E-5", 1e-5),
        ("1e+0", 1.0),
        ("+2.5e-3", 2.5e-3),
        ("1.e-4", 1e-4),
        (".5", 0.5),
        ("0.001", 0.001),
        ("1", 1.0),
    ],
)
def test_numbers_are_read_as_people_write_learning_rates(read, text, number):
    read_number = value(read, "learning_rate", text)
    assert read_number == number
    assert type(read_number) is float


@pytest.mark.parametrize("text", ["2024-01-01", "=", "y", "'010'", "'on'", "'1e-5'", "5a"])
def test_what_all_read_as_text_is_the_name_of_a_block(read, text):
    assert value(read, "which", text) == text.strip("'")


# Optimizers.


def test_an_optimizer_with_arguments_is_built(read):
    optimizer = value(
        read, "optimizer", "{name: rmsprop, rho: 0.8, momentum: 1e-1, centered: true}"
    )
    assert type(optimizer) is keras.optimizers.RMSprop
    assert (optimizer.rho, optimizer.momentum, optimizer.centered) == (0.8, 0.1, True)


def test_no_two_phases_share_an_optimizer(read):
    line = "- {patience: 1, optimizer: {name: sgd}}\n"
    first, second = read(2 * line)
    assert first.optimizer is not second.optimizer


@pytest.mark.parametrize("name", schedule_file._OPTIMIZERS)
def test_each_optimizer_is_the_one_that_keras_knows_by_that_name(read, name):
    by_name = keras.optimizers.get(value(read, "optimizer", name))
    assert type(by_name) is type(value(read, "optimizer", f"{{name: {name}, clipnorm: 1}}"))
    assert type(by_name).__module__.startswith("keras.src.optimizers.")


@pytest.mark.parametrize("name", schedule_file._OPTIMIZERS)
def test_the_numbers_that_keras_itself_defaults_to_are_accepted(read, name):
    config = keras.optimizers.get(name).get_config()
    arguments = {
        key: str(number).lower()
        for key, number in config.items()
        if isinstance(number, int | float) and key != "exclude_embeddings"
    }
    text = "".join(f", {key}: {number}" for key, number in arguments.items())
    assert value(read, "optimizer", f"{{name: {name}{text}}}").get_config().keys() == config.keys()


def test_a_class_that_somebody_registered_is_no_optimizer_of_a_file(refused_value):
    @keras.saving.register_keras_serializable(package="evil")
    class Evil(keras.optimizers.SGD):
        pass

    for name in ("Evil", "evil>Evil", "keras.optimizers.SGD", "LossScaleOptimizer", "Optimizer"):
        assert "unknown optimizer" in refused_value("optimizer", f'"{name}"')
        assert "unknown optimizer" in refused_value("optimizer", f'{{name: "{name}"}}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rmsprob", r"unknown optimizer 'rmsprob'. Did you mean 'rmsprop'\? Expected one of: "),
        ("3", "`optimizer` must be the name of an optimizer.* Received: 3"),
        ("[sgd]", "`optimizer` must be the name of an optimizer.* Received: a list"),
        ("", "`optimizer` must be .* Received: nothing"),
        ("{rho: 0.9}", "`optimizer` has no `name`. Expected one of: adadelta, "),
        ("{name: {name: sgd}}", "the `name` of an optimizer must be a text"),
        ("{name: sgd, momentun: 1}", "unknown argument of SGD 'momentun'.* mean 'momentum'"),
        ("{name: sgd, class_name: x}", "unknown argument of SGD 'class_name'"),
        ("{name: muon, exclude_layers: [a]}", "unknown argument of Muon 'exclude_layers'"),
        ("{name: sgd, momentum: '0.9'}", "`momentum` must be a number.*Leave the quotes out"),
        ("{name: sgd, momentum: -0.9}", "`momentum` must be a number from 0 on"),
        ("{name: sgd, momentum: true}", "`momentum` must be a number from 0 on. Received: true"),
        ("{name: sgd, momentum: .inf}", "`momentum` must be a number from 0 on"),
        ("{name: sgd, momentum: 2}", "Keras refuses this SGD: .*momentum"),
        ("{name: sgd, nesterov: 1}", "`nesterov` must be true or false"),
        ("{name: sgd, learning_rate: {class_name: x}}", "`learning_rate` .* Received: a mapping"),
        (
            "{name: sgd, gradient_accumulation_steps: 2.0}",
            "`gradient_acc.*` must be a whole number.* Write 2",
        ),
        ("{name: sgd, name: adam}", "'name' is there already, in line 4"),
        ("{name: sgd, momentum: 0, momentum: 0}", "'momentum' is there already, in line 4"),
    ],
)
def test_an_optimizer_that_is_not_plainly_one_of_keras_is_refused(refused_value, text, message):
    assert re.match(message, refused_value("optimizer", text))


# Values.


@pytest.mark.parametrize("field", ["at_epoch", "patience", "warmup"])
@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("20.0", "20.0. Write 20."),
        ("1.5", "1.5."),
        ("2e1", "2e1. Write 20."),
        ("'20'", "the quoted text '20'. Leave the quotes out."),
        ("true", "true."),
        ("-1", "-1."),
        ("", "nothing. Write a value, or leave it out."),
        ("[1]", "a list."),
        ("{a: 1}", "a mapping."),
        ("twenty", "the text 'twenty'."),
        (".nan", ".nan."),
        ("+20", "+20. Write 20."),
        ("9" * 5000, f"{56 * '9'}..., a number of 5000 digits."),
    ],
)
def test_what_is_counted_must_be_a_whole_number(refused_value, field, text, received):
    message = refused_value(field, text)
    assert message.startswith(f"`{field}` must be a whole number from ")
    assert message.endswith(f"Received: {received}")


def test_a_patience_of_no_epochs_is_refused(refused_value):
    assert "from 1 on. Received: 0" in refused_value("patience", "0")


@pytest.mark.parametrize("field", ["learning_rate", "lr_decay"])
@pytest.mark.parametrize(
    "text",
    ["0", "-1e-5", ".nan", "nan", ".inf", "1e999", "1e-999", "'1e-5'", "true", "1,5", "", "[1]"],
)
def test_a_rate_must_be_a_positive_number(refused_value, field, text):
    message = refused_value(field, text)
    assert message.startswith(f"`{field}` must be a positive number, such as 1e-5. Received: ")


@pytest.mark.parametrize("field", ["which", "freeze"])
@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e5", "true", "''", "", "[]", "{}", "{a: b}"])
def test_blocks_must_be_named_or_counted(refused_value, field, text):
    assert refused_value(field, text).startswith(
        f"`{field}` must be a block's name, a glob, a list"
    )


def test_each_wrong_item_of_a_list_of_blocks_has_its_line(refused):
    errors = refused("- at_epoch: 1\n  which:\n  - block5\n  - 4\n  - [block3]\n  - ''\n")
    assert [line for line, _ in errors] == [4, 5, 6]
    assert all(text.startswith("each item of `which` must be the name") for _, text in errors)


@pytest.mark.parametrize("text", ["1", "'true'", "maybe", ""])
def test_a_truth_value_must_be_true_or_false(refused_value, text):
    assert "must be true or false. Received: " in refused_value("restore_best", text)


@pytest.mark.parametrize("field", ["restore_best", "which", "at_epoch", "optimizer"])
@pytest.mark.parametrize(("text", "truth"), [("on", "true"), ("Yes", "true"), ("OFF", "false")])
def test_the_switches_of_yaml_1_1_are_refused_with_a_hint(refused_value, field, text, truth):
    message = refused_value(field, text)
    assert f"Received: {text}, which YAML 1.1 reads as {truth} and YAML 1.2 as a text." in message


@pytest.mark.parametrize("field", ["which", "at_epoch", "learning_rate"])
@pytest.mark.parametrize(
    "text", ["010", "089", "0o17", "0x10", "0b1", "1:30", "1:30.5", "1_000", "1_0.5"]
)
def test_numbers_that_are_read_in_different_ways_are_refused(refused_value, field, text):
    assert f"Received: {text}, which is unclear" in refused_value(field, text)


# Fields and keys.


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("whihc", "which"),
        ("epoch", "at_epoch"),
        ("lr", "learning_rate"),
        ("unfreeze", "which"),
        ("Learning_Rate", "learning_rate"),
    ],
)
def test_an_unknown_field_is_refused_with_the_one_that_was_meant(refused_value, field, meant):
    message = refused_value(field, "1")
    assert message.startswith(f"unknown field {field!r}. Did you mean {meant!r}? Expected one of: ")
    assert message.endswith(f"{', '.join(schedule_file._FIELDS)}.")


@pytest.mark.parametrize("field", ["zzz", "on", "<<", "null"])
def test_a_field_that_is_like_no_other_is_refused_without_a_guess(refused_value, field):
    assert refused_value(field, "{}").startswith(f"unknown field {field!r}. Expected one of: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("20: block5\n30: block4\n20: block3\n", 3),
        ("phases:\n- at_epoch: 20\nphases:\n- at_epoch: 30\n", 3),
        ("- at_epoch: 20\n  which: block5\n\n  which: block4\n", 4),
        ("- at_epoch: 20\n  which: block5\n  'which': block5\n", 3),
        ("- at_epoch: 20\n  optimizer:\n    name: sgd\n    name: sgd\n", 4),
    ],
    ids=["epoch", "phases", "field", "quoted", "optimizer"],
)
def test_a_key_that_is_there_twice_is_refused(refused, text, line):
    ((found, message),) = refused(text)
    assert found == line
    assert re.match(r"'.+' is there already, in line \d\. Remove one", message)


def test_a_phase_that_never_begins_is_refused_where_it_stands(refused):
    ((line, message),) = refused("phases:\n- at_epoch: 1\n\n- which: block5\n  warmup: 3\n")
    assert line == 4
    assert "Expected `at_epoch`, an epoch counted from 0, or `patience`" in message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\nblock5", 2, "a schedule must be .* Received: the text 'block5'"),
        ("phases:\n  - block5", 2, "a phase must be a mapping of fields.* the text 'block5'"),
        ("phases:\n  -", 2, "a phase must be a mapping of fields.* Received: nothing"),
        ("# a\nphase:\n- at_epoch: 1", 2, "'phase' is neither `phases` nor an epoch"),
        ("which: block5", 1, "the field 'which' is in no phase. Expected a list of phases"),
        ("phases:\n- at_epoch: 1\nmonitor: loss", 3, "unknown field 'monitor'. .*one of: phases"),
        ("- 20: block5", 1, "unknown field '20'.* short form, `20: ...` without a dash"),
        ("- at_epoch: 1\n- ? [a]\n  : b\n  at_epoch: 1", 2, "a field must have a plain name"),
        ("1: a\n'20': b", 2, "an epoch must be a whole number.* Leave the quotes out"),
        ("1: a\n20.0: b", 2, "an epoch must be a whole number.* Write 20"),
        ("1: a\n-20: b", 2, "an epoch must be a whole number from 0 on"),
        ("1: a\n010: b", 2, "an epoch must be a whole number.* unclear"),
        ("1: a\non: b", 2, "an epoch must be a whole number.* YAML 1.1 reads as true"),
        ("1: a\n20: {which: b}", 2, "what an epoch unfreezes must be .* Received: a mapping"),
        ("1: a\n20:", 2, "what an epoch unfreezes must be .* Received: nothing"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_one_is(refused, text, line, message):
    ((found, received),) = refused(text)
    assert found == line
    assert re.match(message, received)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~", "null"])
def test_an_empty_file_is_refused(refused, text):
    ((line, message),) = refused(text)
    assert line == 1
    assert message.startswith("the file is empty. Expected a list of phases such as")


@pytest.mark.parametrize("text", ["# a\n[]", "# a\n{}", "# a\nphases:", "# a\nphases: []"])
def test_a_schedule_of_no_phases_is_refused(refused, text):
    ((line, message),) = refused(text)
    assert line == 2
    assert re.search("a schedule must be a list of phases.* Received: (an empty|nothing)", message)


def test_all_errors_of_a_file_are_told_at_once_in_their_order(refused):
    errors = refused(
        "- which: 0\n- at_epoch: 1.5\n  lr: 1\n- {at_epoch: 1, optimizer: x, warmup: -1}"
    )
    assert [line for line, _ in errors] == [1, 1, 2, 3, 4, 4]


def test_a_thousand_errors_are_counted_and_not_all_told(read):
    with pytest.raises(ScheduleFileError, match="980 more errors") as caught:
        read("- {at_epoch: -1}\n" * 1000)
    assert len(str(caught.value).split("\n")) == 21


# What YAML can do that a schedule does not need.


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir",
        "!!python/name:os.system",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir>",
        "!custom",
        "!!str",
    ],
)
def test_tags_are_refused_and_nothing_runs(refused, tmp_path, tag):
    ((line, message),) = refused(f"- at_epoch: 1\n  which: {tag} ['{tmp_path / 'made'}']\n")
    assert line == 2
    assert message.startswith("the tag ")
    assert "is refused" in message
    assert not (tmp_path / "made").exists()


def test_anchors_and_aliases_are_refused_each_in_its_line(refused):
    errors = refused("- at_epoch: 1\n  which: &top [a]\n- at_epoch: 2\n  which: *top\n")
    assert [line for line, _ in errors] == [2, 4]
    assert errors[0][1].startswith("the anchor &top is refused")
    assert errors[1][1].startswith("the alias *top is refused")


def test_a_file_that_would_expand_without_end_is_refused(read):
    lines = ["- &a0 [x, x]", *(f"- &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 200))]
    with pytest.raises(ScheduleFileError, match=r"line 2: the alias \*a0 is refused"):
        read("\n".join(lines))


@pytest.mark.parametrize("text", ["- at_epoch: 1\n  which: *", "- at_epoch: 1\n  which: *5"])
def test_a_glob_that_yaml_takes_for_an_alias_is_refused_with_a_hint(refused, text):
    ((line, message),) = refused(text)
    assert line == 2
    assert message.endswith("lob that begins with * needs quotes.")


@pytest.mark.parametrize(
    "text", ["1: a\n---\n2: b", "---\n1: a\n---\n", "---\n---\n", "1: a\n...\n---"]
)
def test_a_second_document_is_refused(refused, text):
    ((line, message),) = refused(text)
    assert line == text.rstrip("\n2: b").count("\n") + 1
    assert message.startswith("a second document begins. Expected one")


@pytest.mark.parametrize("text", ["[", "- ", "? ", "...\n" * 3000 + "["])
def test_a_file_of_nothing_but_depth_is_refused(refused, text):
    deep = text + 3000 * text[-1] if text.endswith("[") else 3000 * text
    ((line, message),) = refused(f"\n{deep}")
    assert line == text.count("\n") + 2
    assert message.startswith("lists and mappings nest too deeply")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- at_epoch: 1\n  which: [a\n- b: 1", 3, "begins in line 2, expected ',' or ']'"),
        ("- at_epoch: 1\n  which: a: b", 2, "mapping values are not allowed here"),
        ("20:\n\t- block5", 2, "Indent with spaces, not with tabs"),
        ("1: a\n20: 'block5\n\n", 4, "a quoted scalar that begins in line 2, found unexpected end"),
        ("1: a\n20: @b", 2, "found character '@' that cannot start any token"),
        ("%YAML 2.0\n---\n20: a", 1, "found incompatible YAML document"),
    ],
)
def test_what_is_no_yaml_is_refused_at_the_place_of_the_problem(refused, text, line, message):
    ((found, received),) = refused(text)
    assert found == line
    assert received.startswith("this is not YAML: ")
    assert message in received


# Files.


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"1: a\r\n20: caf\xe9", 2, "the byte 0xe9, which is not UTF-8"),
        ("20: block5".encode("utf-16"), 1, "no text"),
        (b"PK\x03\x04\n\n\x00\x00", 3, "a byte 0"),
        (b"1: a\n\n20: \x07", 3, r"the character '\x07'"),
    ],
    ids=["latin-1", "utf-16", "zip", "bell"],
)
def test_what_is_no_text_is_refused(refused, data, line, message):
    ((found, received),) = refused(data)
    assert found == line
    assert received.startswith("this is no text: it holds ")
    assert message in received


def test_a_file_that_is_far_too_large_is_refused_unread(refused):
    ((line, message),) = refused("# much\n" * 20_000)
    assert line == 1
    assert message.startswith("the file has more than 100,000 bytes")


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    for name in ("none.yaml", "file/none.yaml"):
        path = tmp_path / name
        with pytest.raises(FileNotFoundError, match=r"There is no file .*; write it, or") as caught:
            read_schedule(path)
        assert repr(str(path)) in str(caught.value)


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(
        ScheduleFileError, match=r"this is a folder\. Expected a YAML file"
    ) as caught:
        read_schedule(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_the_message_names_the_file_as_it_was_given(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("20: 0")
    with pytest.raises(ScheduleFileError) as caught:
        read_schedule(path)
    assert str(caught.value).startswith(f"{path}, line 1: ")
    assert isinstance(caught.value, ValueError)
