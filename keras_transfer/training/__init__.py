"""Training: unfreezing in phases, optimizers for blocks, curves, learning rates."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
