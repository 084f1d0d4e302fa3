"""Transfer learning for Keras 3: frozen backbones as chains of blocks, unfrozen inside one fit."""

from keras_transfer.block_unfreezer import BlockUnfreezer as BlockUnfreezer
from keras_transfer.feature_cache import FeatureCache as FeatureCache
from keras_transfer.frozen_backbone import FrozenBackbone as FrozenBackbone
from keras_transfer.transfer_model import TransferModel as TransferModel

__version__ = "0.1.0"
