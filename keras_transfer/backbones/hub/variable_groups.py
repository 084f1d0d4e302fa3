"""VariableGroup: variables of a layer that are frozen and unfrozen together."""

import math
from collections import Counter
from collections.abc import Sequence

import keras

from keras_transfer.backbones.splitting import MAX_BLOCKS, numbered, stage_of


class VariableGroup:
    """Some of a layer's variables, with the interface of a block of `FrozenBackbone`.

    Args:
        name: The group's name.
        layer: The layer that has the variables.
        weights: The variables.
        trains: Whether each of them can train.
    """

    def __init__(
        self,
        name: str,
        layer: keras.Layer,
        weights: Sequence[keras.Variable],
        trains: Sequence[bool],
    ) -> None:
        self.name = name
        self.weights = list(weights)
        self._layer = layer
        self._trains = [weight for weight, can in zip(weights, trains, strict=True) if can]

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of the layer's output: those within it are not known."""
        return self._layer.specification.output_shape

    @property
    def trainable(self) -> bool:
        """Whether they train."""
        return self._layer.trainable and any(weight.trainable for weight in self._trains)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if value and not self._layer.trainable:
            self._layer.trainable = True  # which would unfreeze the other groups, too
            for weight in self._layer.weights:
                weight.trainable = False
        for weight in self._trains:
            weight.trainable = value

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The variables that train."""
        return [weight for weight in self._trains if weight.trainable] if self.trainable else []

    def count_params(self) -> int:
        """Returns the number of their elements."""
        return sum(math.prod(weight.shape) for weight in self.weights)


_NEARLY_ALL = 0.8

_Path = tuple[str, ...]
_Groups = list[tuple[str, list[_Path]]]


def variable_groups(
    names: Sequence[str], sizes: Sequence[int], trainable: Sequence[bool]
) -> tuple[str, ...] | None:
    """Puts the variables of a module into 2 to 12 groups by the scopes in their names.

    The groups are the scopes at the smallest depth at which none holds nearly all weights. Scopes
    that are named like stages of published networks are joined by stage. Variables outside of all
    groups join the group before them.

    Args:
        names: The variables' names, in the order in which the network uses them, such as
            `resnet_v1_152/block4/unit_1/bottleneck_v1/conv1/weights`.
        sizes: Their numbers of elements.
        trainable: Whether each can train. Each group holds one that can.

    Returns:
        The name of the group of each variable, such as `block4`; `None` if there would be one
        group only.

    Example:
        >>> variable_groups(["m/stem/w", "m/stem/mean", "m/top/w"], [9, 3, 9], [True, False, True])
        ('stem', 'stem', 'top')
    """
    paths = [tuple(name.split(":")[0].split("/")[:-1]) for name in names]
    best: tuple[int, _Groups] | None = None
    for depth in range(1, max(map(len, paths), default=0) + 1):
        weights: Counter[_Path] = Counter()
        for path, size, trains in zip(paths, sizes, trainable, strict=True):
            if trains:
                weights[path[:depth]] += size
        scopes = {path[:end] for path in weights for end in range(len(path))}  # that hold others
        groups = _by_stage([prefix for prefix in weights if prefix not in scopes])
        if len(groups) < 2:
            continue
        if best is not None and len(groups) > MAX_BLOCKS:
            break
        largest = max(sum(weights[prefix] for prefix in prefixes) for _, prefixes in groups)
        is_even = largest <= _NEARLY_ALL * weights.total()
        best = (depth, groups) if best is None or is_even else best
        if is_even:
            break
    if best is None:
        return None
    depth, groups = best[0], _at_most(best[1])
    unique = numbered(name for name, _ in groups)
    group_of = {
        p: name for name, (_, prefixes) in zip(unique, groups, strict=True) for p in prefixes
    }
    of_paths = [group_of.get(path[:depth]) for path in paths]
    current = next(filter(None, of_paths))
    return tuple(current := name or current for name in of_paths)


def _by_stage(prefixes: Sequence[_Path]) -> _Groups:
    """Joins scopes by the stages in their names, if nearly all of them name one."""
    stages = [stage_of(prefix[-1]) for prefix in prefixes]
    known = [stage for stage in stages if stage is not None]
    if len(set(known)) < 2 or len(known) < _NEARLY_ALL * len(stages):
        return [(prefix[-1], [prefix]) for prefix in prefixes]
    groups: _Groups = []
    for prefix, stage in zip(prefixes, stages, strict=True):
        if groups and stage in (None, groups[-1][0]):
            groups[-1][1].append(prefix)
        else:
            groups.append((stage or known[0], [prefix]))
    return groups


def _at_most(groups: _Groups) -> _Groups:
    """Joins neighbours while there are too many groups to name."""
    if len(groups) <= MAX_BLOCKS:
        return groups
    size = -(-len(groups) // MAX_BLOCKS)
    runs = [groups[i : i + size] for i in range(0, len(groups), size)]
    return [
        (f"stage{number}", [prefix for _, prefixes in run for prefix in prefixes])
        for number, run in enumerate(runs, 1)
    ]
