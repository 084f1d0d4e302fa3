"""Pure functions from numbers to matplotlib figures: histories, searches, sweeps.

Nothing behind this face imports Keras or TensorFlow, and matplotlib only where a figure is drawn.
"""

from keras_transfer.plotting.annotations import PhaseMarker as PhaseMarker
from keras_transfer.plotting.annotations import phase_marks as phase_marks
from keras_transfer.plotting.comparison import compare_figure as compare_figure
from keras_transfer.plotting.curves import Best as Best
from keras_transfer.plotting.curves import Logs as Logs
from keras_transfer.plotting.curves import Mode as Mode
from keras_transfer.plotting.curves import best_epoch as best_epoch
from keras_transfer.plotting.curves import lower_is_better as lower_is_better
from keras_transfer.plotting.curves import monitored_log as monitored_log
from keras_transfer.plotting.diagnosis import Diagnosis as Diagnosis
from keras_transfer.plotting.diagnosis import diagnose as diagnose
from keras_transfer.plotting.figure_files import figure_path as figure_path
from keras_transfer.plotting.figure_files import save_figure as save_figure
from keras_transfer.plotting.history import history_figure as history_figure
from keras_transfer.plotting.learning_rate import rate_figure as rate_figure
from keras_transfer.plotting.parallel_coordinates import parallel_figure as parallel_figure
from keras_transfer.plotting.search import importance_figure as importance_figure
from keras_transfer.plotting.search import search_figure as search_figure
