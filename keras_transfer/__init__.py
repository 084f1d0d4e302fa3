"""Transfer learning for Keras 3: frozen backbones as chains of blocks, unfrozen inside one fit."""

import importlib
import os
from types import ModuleType
from typing import TYPE_CHECKING

from wrapt import when_imported

if TYPE_CHECKING:
    from keras_transfer.backbones.frozen_backbone import FrozenBackbone as FrozenBackbone
    from keras_transfer.backbones.hub.hub_module import HubModule as HubModule
    from keras_transfer.data.augmentation import Flips as Flips
    from keras_transfer.data.image_folder import ImageFolder as ImageFolder
    from keras_transfer.data.read_folder import image_folder as image_folder
    from keras_transfer.evaluation.report import report as report
    from keras_transfer.features.feature_cache import FeatureCache as FeatureCache
    from keras_transfer.models.averaged_views import AveragedViews as AveragedViews
    from keras_transfer.models.transfer_model import TransferModel as TransferModel
    from keras_transfer.plotting.plot_history import plot_history as plot_history
    from keras_transfer.training.block_unfreezer import BlockUnfreezer as BlockUnfreezer
    from keras_transfer.training.find_learning_rate import RateFinding as RateFinding
    from keras_transfer.training.find_learning_rate import find_learning_rate as find_learning_rate
    from keras_transfer.training.history_plotter import HistoryPlotter as HistoryPlotter
    from keras_transfer.training.schedule import Phase as Phase

__version__ = "0.1.0"


def _check_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            f"keras_transfer works with the TensorFlow backend of Keras. Received: {backend!r}, "
            "from the environment variable KERAS_BACKEND or from ~/.keras/keras.json. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )


_check_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")

_MODULES = {
    "AveragedViews": "models.averaged_views",
    "BlockUnfreezer": "training.block_unfreezer",
    "FeatureCache": "features.feature_cache",
    "Flips": "data.augmentation",
    "FrozenBackbone": "backbones.frozen_backbone",
    "HistoryPlotter": "training.history_plotter",
    "HubModule": "backbones.hub.hub_module",
    "ImageFolder": "data.image_folder",
    "Phase": "training.schedule",
    "RateFinding": "training.find_learning_rate",
    "TransferModel": "models.transfer_model",
    "find_learning_rate": "training.find_learning_rate",
    "image_folder": "data.read_folder",
    "plot_history": "plotting.plot_history",
    "report": "evaluation.report",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    """Imports a public name where it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


@when_imported("keras")
def _register_classes(keras: ModuleType) -> None:
    """Makes the classes known to Keras, which looks for them by name when it loads a file.

    Importing Keras takes seconds, which `keras_transfer --help` and the drawing of a table can do
    without. So the package does not import it. The packages that need it (data, backbones, ...) do
    so before any of their modules, so that this function never meets one that is half imported.
    """
    _check_backend(keras.config.backend())
    for module in dict.fromkeys(_MODULES.values()):
        importlib.import_module(f"{__name__}.{module}")
