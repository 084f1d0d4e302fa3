"""VariableGroup: variables of a layer that are frozen and unfrozen together."""

import math
from collections import Counter
from collections.abc import Sequence

import keras

from keras_transfer.backbones.blocks import MAX_BLOCKS, stage_of


class VariableGroup:
    """Some of a layer's variables, with what `FrozenBackbone` asks of a block.

    Args:
        name: The group's name.
        layer: The layer that they are of.
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
        """That of the layer: what lies inside is not known."""
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
        """Those of them that train."""
        return [weight for weight in self._trains if weight.trainable] if self.trainable else []

    def count_params(self) -> int:
        """Returns the number of their elements."""
        return sum(math.prod(weight.shape) for weight in self.weights)


_FEW = 4  # with fewer groups, one that holds nearly everything is divided again
_NEARLY_ALL = 0.8

_Path = tuple[str, ...]


def variable_groups(
    names: Sequence[str], sizes: Sequence[int], trainable: Sequence[bool]
) -> tuple[str, ...] | None:
    """Puts the variables of a module into 2 to 12 groups by the scopes that their names speak of.

    Args:
        names: The variables' names, in the order in which the network uses them, such as
            `resnet_v1_152/block4/unit_1/bottleneck_v1/conv1/weights`.
        sizes: Their numbers of elements.
        trainable: Whether each can train. Each group holds one that can.

    Returns:
        The name of the group of each variable, such as `block4`; `None` if the names tell of no
        more than one group. What no name speaks of joins what comes before it.

    Example:
        >>> variable_groups(["m/stem/w", "m/stem/mean", "m/top/w"], [9, 3, 9], [True, False, True])
        ('stem', 'stem', 'top')
    """
    paths = [tuple(name.split(":")[0].split("/")[:-1]) for name in names]
    weights = {
        (i, path): size
        for i, (path, size, trains) in enumerate(zip(paths, sizes, trainable, strict=True))
        if trains
    }
    groups = _at_most(_by_stage(_divided(_children((), weights), weights)))
    if len(groups) < 2:
        return None
    names_of = {prefix: name for name, prefixes in _unique(groups) for prefix in prefixes}
    return _spread([_group_of(path, names_of) for path in paths])


def _children(prefix: _Path, weights: dict[tuple[int, _Path], int]) -> list[_Path]:
    """The scopes right below the longest one that all weights under `prefix` share."""
    below = [path for _, path in weights if path[: len(prefix)] == prefix]
    deeper = [path for path in below if len(path) > len(prefix)]
    if not deeper:
        return []
    # Two paths that differ most differ first where any two of them do.
    pairs = enumerate(zip(min(deeper), max(deeper), strict=False))
    depth = next((i for i, (a, b) in pairs if a != b), len(min(deeper, key=len)))
    return list(dict.fromkeys(path[: depth + 1] for path in deeper if len(path) > depth))


def _divided(prefixes: list[_Path], weights: dict[tuple[int, _Path], int]) -> list[_Path]:
    """Divides the scope that holds nearly everything, such as the network beside its head."""
    while 1 < len(prefixes) < _FEW:
        share = Counter(
            {
                prefix: sum(n for (_, p), n in weights.items() if p[: len(prefix)] == prefix)
                for prefix in prefixes
            }
        )
        ((largest, size),) = share.most_common(1)
        parts = _children(largest, weights)
        if size < _NEARLY_ALL * share.total() or not 1 < len(parts) <= MAX_BLOCKS:
            break
        at = prefixes.index(largest)
        prefixes = [*prefixes[:at], *parts, *prefixes[at + 1 :]]
    return prefixes


def _by_stage(prefixes: Sequence[_Path]) -> list[tuple[str, list[_Path]]]:
    """Joins scopes by the stage that they speak of, where nearly all of them speak of one."""
    stages = [stage_of(prefix[-1]) for prefix in prefixes]
    spoken = [stage for stage in stages if stage is not None]
    if len(set(spoken)) < 2 or len(spoken) < _NEARLY_ALL * len(stages):
        return [(prefix[-1], [prefix]) for prefix in prefixes]
    groups: list[tuple[str, list[_Path]]] = []
    for prefix, stage in zip(prefixes, stages, strict=True):
        if groups and stage in (None, groups[-1][0]):
            groups[-1][1].append(prefix)
        else:
            groups.append((stage or spoken[0], [prefix]))
    return groups


def _at_most(groups: list[tuple[str, list[_Path]]]) -> list[tuple[str, list[_Path]]]:
    """Joins neighbours while there are too many to name."""
    if len(groups) <= MAX_BLOCKS:
        return groups
    size = -(-len(groups) // MAX_BLOCKS)
    runs = [groups[i : i + size] for i in range(0, len(groups), size)]
    return [
        (f"stage{number}", [prefix for _, prefixes in run for prefix in prefixes])
        for number, run in enumerate(runs, 1)
    ]


def _unique(groups: Sequence[tuple[str, list[_Path]]]) -> list[tuple[str, list[_Path]]]:
    taken: Counter[str] = Counter()
    found = []
    for name, prefixes in groups:
        taken[name] += 1
        found.append((name if taken[name] == 1 else f"{name}_{taken[name]}", prefixes))
    return found


def _group_of(path: _Path, names_of: dict[_Path, str]) -> str | None:
    fitting = (path[:depth] for depth in range(len(path), 0, -1))
    return next((names_of[prefix] for prefix in fitting if prefix in names_of), None)


def _spread(groups: Sequence[str | None]) -> tuple[str, ...]:
    """Joins variables of no group to the group before them, the first ones to the one behind."""
    current = next(group for group in groups if group is not None)
    spread = []
    for group in groups:
        current = group or current
        spread.append(current)
    return tuple(spread)
