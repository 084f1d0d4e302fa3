"""Data: datasets of images, shuffling, augmentation, and what `fit` was given."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
