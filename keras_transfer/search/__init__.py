"""Search: heads, learning rates and fine-tuning of a backbone, tried by KerasTuner."""

import importlib
from typing import TYPE_CHECKING

from keras_transfer.search.space import Range as Range
from keras_transfer.search.space import Space as Space

if TYPE_CHECKING:
    from keras_transfer.search.hypermodel import TransferHyperModel as TransferHyperModel
    from keras_transfer.search.search import Search as Search
    from keras_transfer.search.search import SearchResult as SearchResult

_MODULES = {"Search": "search", "SearchResult": "search", "TransferHyperModel": "hypermodel"}


def __getattr__(name: str) -> object:
    """Imports what needs Keras where it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
