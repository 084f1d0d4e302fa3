"""Backbones: pretrained networks as chains of blocks."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
