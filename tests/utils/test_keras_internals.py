"""The private names of Keras and TensorFlow are still what we take them for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.utils import keras_internals
from keras_transfer.utils.keras_internals import logits_of


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
