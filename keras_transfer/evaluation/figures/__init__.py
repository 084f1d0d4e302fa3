"""Pure functions from the numbers of a report to matplotlib figures."""

from keras_transfer.evaluation.figures.calibration import calibration_figure as calibration_figure
from keras_transfer.evaluation.figures.calibration import (
    calibration_sentence as calibration_sentence,
)
from keras_transfer.evaluation.figures.classes import class_figure as class_figure
from keras_transfer.evaluation.figures.confusion import confusion_figure as confusion_figure
from keras_transfer.evaluation.figures.scores import score_figure as score_figure
from keras_transfer.evaluation.image_grid import Shown as Shown
from keras_transfer.evaluation.image_grid import pictures_figure as pictures_figure
