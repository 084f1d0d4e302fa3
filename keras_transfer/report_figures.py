"""Pure functions from the numbers of a report to matplotlib figures."""

from keras_transfer.calibration_figure import calibration_figure as calibration_figure
from keras_transfer.calibration_figure import calibration_sentence as calibration_sentence
from keras_transfer.class_figure import class_figure as class_figure
from keras_transfer.confusion_figure import confusion_figure as confusion_figure
from keras_transfer.pictures_figure import Shown as Shown
from keras_transfer.pictures_figure import pictures_figure as pictures_figure
from keras_transfer.score_figure import score_figure as score_figure
