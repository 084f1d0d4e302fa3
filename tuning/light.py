"""Parts of keras_transfer that need no Keras, imported without it: a typo is told at once."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

_PACKAGE = "keras_transfer"


@contextlib.contextmanager
def without_keras() -> Iterator[None]:
    """Lets modules of the package be imported within a block without the package itself.

    Importing the package makes its classes known to Keras, which takes seconds. In the block an
    empty package stands in its place, in which its modules are found. Afterwards nothing is left
    of it in `sys.modules`: whoever imports the package then gets all of it, and modules of its own.
    Where it has been imported already, nothing is different in the block.

    Example:
        >>> with without_keras():
        ...     from space import Space
    """
    spec = None if _PACKAGE in sys.modules else importlib.util.find_spec(_PACKAGE)
    if spec is None:
        yield
        return
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
