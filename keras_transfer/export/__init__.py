"""Export: a trained model as files for other runtimes."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
