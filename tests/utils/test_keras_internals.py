"""The private names that we use still mean what we use them for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset

from keras_transfer.utils.keras_internals import (
    array_batches,
    batch_arguments,
    dataset_inputs,
    dataset_kind,
    dataset_stages,
    layers_within,
    shuffle_arguments,
    stateful_operations,
)


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


def test_all_layers_within_a_layer_are_listed():
    inner = keras.layers.Dense(1, name="inner")
    outer = keras.Sequential([keras.Sequential([inner])], name="outer")
    assert layers_within(outer)[0] is outer
    assert any(layer is inner for layer in layers_within(outer))
