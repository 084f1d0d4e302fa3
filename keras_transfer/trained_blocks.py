"""Which blocks of a model's backbones train, and what changed from one epoch to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class TrainedBlocks:
    """The blocks of one backbone, and which of them train.

    Attributes:
        backbone: Name of the layer.
        blocks: Names of all its blocks, from the input to the top.
        trained: Names of those that are not frozen.
    """

    backbone: str
    blocks: tuple[str, ...]
    trained: frozenset[str]


def trained_blocks(model: Any) -> tuple[TrainedBlocks, ...]:
    """Which blocks train, for each backbone in a model.

    Args:
        model: A Keras model, or None. A backbone is any layer in it, at any depth, whose `blocks`
            have a `name` and are `frozen` or not.

    Returns:
        One entry a backbone, in the order in which the model holds them.

    Example:
        >>> trained_blocks(model)
        (TrainedBlocks(backbone='vgg16', blocks=('block4', 'block5'), trained=frozenset()),)
    """
    return tuple(
        TrainedBlocks(
            backbone=layer.name,
            blocks=tuple(block.name for block in layer.blocks),
            trained=frozenset(block.name for block in layer.blocks if not block.frozen),
        )
        for layer in _layers_of(model)
        if _has_blocks(layer)
    )


def _layers_of(model: Any) -> Sequence[Any]:
    # Keras' public `layers` are those of one level; only the private walk also finds a backbone
    # that is an attribute of a subclassed model's layer.
    return model._flatten_layers(include_self=False) if model is not None else ()


def _has_blocks(layer: Any) -> bool:
    blocks = getattr(layer, "blocks", None)  # other layers' `blocks` may be anything
    return (
        isinstance(blocks, Sequence)
        and len(blocks) > 0
        and all(hasattr(block, "name") and hasattr(block, "frozen") for block in blocks)
    )


def describe_change(before: Sequence[TrainedBlocks], after: Sequence[TrainedBlocks]) -> str:
    """Says in a few words which blocks were unfrozen or frozen.

    Args:
        before: What trained in one epoch.
        after: What trained in the next.

    Returns:
        Such as `"block4, block5 unfrozen"`, with the backbone's name in front if there are
        several; empty if nothing changed.

    Example:
        >>> blocks = ("block4", "block5")
        >>> describe_change(
        ...     [TrainedBlocks("vgg16", blocks, frozenset())],
        ...     [TrainedBlocks("vgg16", blocks, frozenset({"block5"}))],
        ... )
        'block5 unfrozen'
    """
    parts = []
    for old, new in zip(before, after, strict=False):
        changes = [
            f"{_abbreviated(new.blocks, names)} {what}"
            for names, what in (
                (new.trained - old.trained, "unfrozen"),
                (old.trained - new.trained, "frozen"),
            )
            if names
        ]
        if changes:
            prefix = f"{new.backbone}: " if len(after) > 1 else ""
            parts.append(prefix + ", ".join(changes))
    return "; ".join(parts)


def _abbreviated(blocks: Sequence[str], chosen: frozenset[str]) -> str:
    """Names of the chosen blocks; of more than two in a row, the first and the last."""
    runs = [list(run) for is_in, run in groupby(blocks, chosen.__contains__) if is_in]
    return ", ".join(f"{run[0]} … {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)
