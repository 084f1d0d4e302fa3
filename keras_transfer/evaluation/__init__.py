"""Evaluation: reports of a classifier on labelled images."""

import keras as keras  # before any module here: see `keras_transfer._register_classes`
