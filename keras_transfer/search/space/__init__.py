"""The space of a search: its hyperparameters, and what each is chosen from."""

from keras_transfer.search.space.dimension import Range as Range
from keras_transfer.search.space.space import Space as Space
