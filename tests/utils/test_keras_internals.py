"""The private names of Keras and TensorFlow are still what we take them for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset

from keras_transfer.utils import keras_internals
from keras_transfer.utils.keras_internals import (
    array_batches,
    batch_arguments,
    dataset_inputs,
    dataset_kind,
    dataset_stages,
    logits_of,
    shuffle_arguments,
    stateful_operations,
)


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_activations_note_their_logits(name):
    logits = keras.ops.convert_to_tensor([[60.0, -1.0]])
    noted = logits_of(keras.activations.get(name)(logits))
    np.testing.assert_array_equal(noted, logits)
    assert logits_of(logits) is None


# ------------------------------------------------------------------------------- of backbones
def test_nodes_come_in_the_order_in_which_they_run():
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(3, 3, padding="same", name="first")(inputs)
    second = keras.layers.Conv2D(3, 3, padding="same", name="second")
    outputs = keras.layers.Add(name="join")([hidden, second(hidden)])
    nodes = keras_internals.nodes_of(keras.Model(inputs, outputs))
    assert [node.operation.name for node in nodes] == ["first", "second", "join"]
    assert nodes[0].input_tensors[0] is inputs
    assert nodes[0].output_tensors[0] is nodes[2].input_tensors[0] is hidden
    assert nodes[2].output_tensors[0] is outputs


def test_layers_are_found_in_attributes_of_subclassed_layers():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(1, name="inner")]

    model = keras.Sequential([Outer()])
    names = [layer.name for layer in keras_internals.layers_of(model)]
    assert names[0] == model.name
    assert "inner" in names


def test_the_automatic_name_is_what_keras_gives():
    layer = keras.layers.SeparableConv2D(2, 3)
    assert layer.name.startswith(keras_internals.automatic_name(layer))


def test_a_symbolic_scope_is_one_in_which_only_shapes_are_asked_for():
    found = []

    class Noted(keras.layers.Layer):
        def call(self, inputs):
            found.append(keras_internals.in_symbolic_scope())
            return inputs

    layer = Noted()
    layer(keras.Input((2,)))
    layer(np.zeros((1, 2)))
    tf.function(layer)(tf.zeros((1, 2)))
    assert found == [True, False, False]


def test_safe_mode_is_that_of_the_file_that_is_being_loaded(tmp_path):
    found = []

    @keras.saving.register_keras_serializable(package="test_keras_internals")
    class Asks(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            found.append(keras_internals.in_safe_mode())

    keras.Sequential([keras.Input((2,)), Asks()]).save(tmp_path / "m.keras")
    for safe_mode in (True, False):
        keras.saving.load_model(tmp_path / "m.keras", safe_mode=safe_mode)
    assert found == [None, True, False]


def test_the_checksum_of_a_graph_is_the_one_that_tensorflow_writes(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    fingerprint = tf.saved_model.experimental.read_fingerprint(str(tmp_path))
    assert keras_internals.checksum_of_graph(tmp_path) == fingerprint.saved_model_checksum


@pytest.mark.traced
def test_functions_are_declared_in_the_outermost_graph():
    variable = tf.Variable(2.0)
    inner = tf.function(lambda x: variable * x * x)
    middle = tf.function(lambda x: inner(x))
    with tf.GradientTape() as tape:
        y = middle(tf.constant(3.0))
    tape.gradient(y, variable)
    undeclared = []

    @tf.function
    def outer(x):
        y = middle(x)
        keras_internals.declare_functions()
        library = tf.compat.v1.get_default_graph().as_graph_def().library.function
        called = {node.attr["f"].func.name for f in library for node in f.node_def}
        undeclared.extend(called - {f.signature.name for f in library} - {""})
        return y

    assert outer(tf.constant(3.0)) == 18
    assert not undeclared
    keras_internals.declare_functions()  # outside of a graph, nothing happens


def compiled(**kwargs) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="top")])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **kwargs})
    return model


def test_the_list_that_calls_a_callback_is_found():
    class Note(keras.callbacks.Callback):
        def set_model(self, model):
            self.list = keras_internals.calling_list(self)

    note = Note()
    assert keras_internals.calling_list(note) is None
    callbacks = keras.callbacks.CallbackList([note], model=compiled())
    assert note.list is callbacks


@pytest.mark.parametrize("scaled", [False, True])
def test_another_optimizer_steps_and_is_saved(scaled, tmp_path):
    first, second = keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1)
    model = compiled(optimizer=keras.optimizers.LossScaleOptimizer(first) if scaled else first)
    keras_internals.set_optimizer(model, second)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert second.built
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert type(getattr(loaded, "inner_optimizer", loaded)) is keras.optimizers.Adam


def test_changed_trainable_flags_take_effect_without_a_warning():
    model = compiled()
    before = model.get_weights()[0]
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    model.get_layer("top").trainable = False
    keras_internals.retrace(model)
    model.evaluate(np.ones((4, 2)), np.ones((4, 1)), verbose=0)  # warnings are errors here
    assert (model.get_weights()[0] != before).any()


def test_metrics_are_built_ahead():
    model = compiled(metrics=["mae"])
    before = len(model.metrics_variables)
    keras_internals.build_metrics(model, (None, 1), (None, 1))
    assert len(model.metrics_variables) > before


def test_the_epoch_that_a_backup_resumes_with_is_read_once(tmp_path):
    model = compiled()
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[backup])
    backup.on_train_begin()
    assert [keras_internals.resumed_epoch(model, 1) for _ in range(2)] == [3, 1]


def test_an_evaluation_within_fit_is_told_from_one_of_the_user():
    class Model(keras.Sequential):
        def evaluate(self, *args, **kwargs):
            within.append(keras_internals.is_evaluation_of_fit(kwargs))
            return super().evaluate(*args, **kwargs)

    within, data = [], (np.ones((4, 2)), np.ones((4, 1)))
    model = Model([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(*data, validation_data=data, verbose=0)
    model.evaluate(*data, verbose=0)
    assert within == [True, False]


def test_variables_of_an_optimizer_are_known_and_named():
    optimizer, variable = keras.optimizers.Adam(), keras.Variable(np.ones(2))
    assert not keras_internals.stepped_variables(optimizer)
    optimizer.build([variable])
    assert keras_internals.stepped_variables(optimizer)[0] is variable
    keras_internals.name_variables(optimizer.variables, "mine")
    assert [one.path for one in optimizer.variables[:2]] == ["mine:0", "mine:1"]


def test_what_weight_decay_leaves_out_can_be_handed_on():
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    other = keras.optimizers.AdamW(1.0, weight_decay=0.5)
    for name, value in keras_internals.weight_decay_exclusions(optimizer).items():
        setattr(other, name, value)
    bias, kernel = (keras.Variable(np.ones(2), name=name) for name in ("bias", "kernel"))
    other.apply([np.zeros(2, "float32")] * 2, [bias, kernel])
    assert bias.numpy().tolist() == [1, 1]
    assert kernel.numpy().tolist() != [1, 1]


def test_the_steps_of_a_pipeline_are_listed_by_kind():
    data = dataset(8).map(lambda x, y: (x, y), num_parallel_calls=2).cache().prefetch(1)
    data = data.apply(tf.data.experimental.assert_cardinality(1)).with_options(tf.data.Options())
    kinds = [dataset_kind(step) for step in dataset_stages(data)]
    expected = ["Options", "AssertCardinality", "Prefetch", "Cache", "Map", "Batch", "Shuffle"]
    assert [kind for kind in kinds if kind in expected] == expected
    assert list(map(dataset_kind, dataset_inputs(dataset(8)))) == ["Shuffle"]
    assert dataset_kind(tf.data.Dataset.random(seed=1)) == "Random"


def test_the_arguments_of_batching_and_shuffling_are_found():
    assert batch_arguments(tf.data.Dataset.range(3).batch(2, drop_remainder=True)) == (2, True)
    shuffled = tf.data.Dataset.range(3).shuffle(2, seed=4, reshuffle_each_iteration=False)
    arguments = shuffle_arguments(shuffled)
    assert (arguments["buffer_size"], arguments["reshuffle"]) == (2, False)
    assert arguments["seeds"][1] == 4


@tf.function
def deep(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x + tf.random.uniform([]), lambda: x)


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (deep, "RandomUniform"),
        (None, "ReadVariableOp"),
        (lambda x: tf.numpy_function(lambda a: a, [x], tf.float32), "PyFunc"),
        (lambda x: x + tf.cast(tf.timestamp(), "float32"), "Timestamp"),
        (lambda x: tf.image.resize(tf.debugging.check_numerics(x, "no"), (2, 2)), ""),
    ],
)
def test_operations_that_may_give_something_else_are_found_at_any_depth(function, operation):
    variable = tf.Variable(1.0)
    function = function or (lambda x: x + variable)
    data = tf.data.Dataset.from_tensors(np.ones((1, 4, 4, 1), "float32")).map(function)
    assert stateful_operations(data) == ({operation} if operation else set())


@pytest.mark.parametrize("shuffle", [False, True, "batch"])
def test_row_numbers_come_in_the_order_in_which_keras_gives_arrays(shuffle):
    def plain():
        seen = []
        model = keras.Sequential([keras.layers.Lambda(lambda x: x)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_step = lambda data: (seen.append(np.array(data[0])), {"loss": 0.0})[1]
        keras.utils.set_random_seed(7)
        x = np.arange(23)
        model.fit(x, x, batch_size=4, epochs=3, verbose=0, shuffle=shuffle)
        return np.concatenate(seen).ravel()

    keras.utils.set_random_seed(7)
    data = array_batches(np.arange(23), np.arange(23), None, batch_size=4, shuffle=shuffle)
    ours = np.concatenate([np.concatenate([np.array(i) for i, _ in data]) for _ in range(3)])
    np.testing.assert_array_equal(ours, plain())
