"""Models: classifiers on a frozen backbone."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
