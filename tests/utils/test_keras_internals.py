"""The private names of Keras and TensorFlow are still what we take them for."""

import keras
import numpy as np
import pytest

from keras_transfer.utils.keras_internals import logits_of


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_activations_note_their_logits(name):
    logits = keras.ops.convert_to_tensor([[60.0, -1.0]])
    noted = logits_of(keras.activations.get(name)(logits))
    np.testing.assert_array_equal(noted, logits)
    assert logits_of(logits) is None
