"""Transfer learning for Keras 3: frozen backbones as chains of blocks, unfrozen inside one fit."""

import sys as _sys

__version__ = "0.1.0"

# Importing the package makes its classes known to Keras, which finds those of other packages in no
# other way when it loads a file. Only its commands `python -m keras_transfer.predict`, which works
# from an export alone, and `python -m keras_transfer.plot_history`, which draws tables, start
# without. (While Python looks for a module to run, argv[0] is "-m".)
_ALONE = {("-m", "keras_transfer.predict"), ("-m", "keras_transfer.plot_history")}
if _sys.argv[:1] != ["-m"] or _ALONE.isdisjoint(
    zip(_sys.orig_argv, _sys.orig_argv[1:], strict=False)
):
    from keras_transfer import supported_keras as supported_keras  # first: checks the backend
    from keras_transfer.averaged_views import AveragedViews as AveragedViews
    from keras_transfer.block_unfreezer import BlockUnfreezer as BlockUnfreezer
    from keras_transfer.feature_cache import FeatureCache as FeatureCache
    from keras_transfer.find_learning_rate import RateFinding as RateFinding
    from keras_transfer.find_learning_rate import find_learning_rate as find_learning_rate
    from keras_transfer.flips import Flips as Flips
    from keras_transfer.frozen_backbone import FrozenBackbone as FrozenBackbone
    from keras_transfer.history_plotter import HistoryPlotter as HistoryPlotter
    from keras_transfer.hub_module import HubModule as HubModule
    from keras_transfer.image_folder import ImageFolder as ImageFolder
    from keras_transfer.image_folder import image_folder as image_folder
    from keras_transfer.plot_history import plot_history as plot_history
    from keras_transfer.report import report as report
    from keras_transfer.schedule import Phase as Phase
    from keras_transfer.transfer_model import TransferModel as TransferModel
