"""The list that a callback stands in, which Keras does not tell it."""

import inspect
from typing import Any

import keras


def callback_list(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """Returns the list that is calling a method of a callback, `None` if none is.

    A callback that others depend on has to be asked first, in whatever order the user gave them:
    what `BackupAndRestore` saves at the end of an epoch must hold what the epoch has decided. Keras
    hands callbacks no list, so it is found among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and callback in caller.callbacks:
            return caller
        frame = frame.f_back
    return None


def lead(callback: keras.callbacks.Callback) -> list[Any]:
    """Puts a callback at the head of the list that is calling it.

    Returns:
        The others of the list.
    """
    its_list = callback_list(callback)
    if its_list is None:
        return []
    others = [other for other in its_list.callbacks if other is not callback]
    its_list.callbacks = [callback, *others]  # a new list: Keras is walking through the old one
    return others
