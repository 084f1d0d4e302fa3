"""Features: what is frozen is computed once and kept."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
