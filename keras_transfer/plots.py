"""Pure functions from numbers to matplotlib figures: histories, searches, sweeps.

Nothing behind this face imports Keras or TensorFlow, and matplotlib only where a figure is drawn.
"""

from keras_transfer.compare_figure import compare_figure as compare_figure
from keras_transfer.curve_facts import Best as Best
from keras_transfer.curve_facts import Logs as Logs
from keras_transfer.curve_facts import Mode as Mode
from keras_transfer.curve_facts import best_epoch as best_epoch
from keras_transfer.curve_facts import lower_is_better as lower_is_better
from keras_transfer.curve_facts import monitored_log as monitored_log
from keras_transfer.diagnosis import Diagnosis as Diagnosis
from keras_transfer.diagnosis import diagnose as diagnose
from keras_transfer.history_figure import history_figure as history_figure
from keras_transfer.importance_figure import importance_figure as importance_figure
from keras_transfer.marks import Mark as Mark
from keras_transfer.marks import phase_marks as phase_marks
from keras_transfer.parallel_figure import parallel_figure as parallel_figure
from keras_transfer.rate_figure import rate_figure as rate_figure
from keras_transfer.search_figure import search_figure as search_figure
from keras_transfer.whole_files import figure_path as figure_path
from keras_transfer.whole_files import save_figure as save_figure
