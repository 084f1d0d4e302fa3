"""Trained: what a trial leaves behind."""

from dataclasses import dataclass

from ensemble import Member

from keras_transfer import HistoryPlotter, TransferModel


@dataclass(frozen=True)
class Trained:
    """What a trial leaves behind, with the weights of its best epoch.

    Attributes:
        metrics: All logs of that epoch.
        epoch: That epoch, from 1.
        plotter: The curves.
        member: What was trained, to write to a file or to average.
        model: The model. It keeps its weights whatever later trials do.
    """

    metrics: dict[str, float]
    epoch: int
    plotter: HistoryPlotter
    member: Member
    model: TransferModel
