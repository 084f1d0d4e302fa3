"""Private names of Keras and TensorFlow, each with the reason why no public one does."""

from typing import Any


def logits_of(outputs: Any) -> Any:
    """Returns what the last sigmoid or softmax was given; None if Keras did not note it.

    Private name: `_keras_logits`, which Keras' activations set on their result so that losses can
    use it. No public API leads from an output back to its logits, and the gradient of a
    probability close to 1 is lost in float32.
    """
    return getattr(outputs, "_keras_logits", None)
