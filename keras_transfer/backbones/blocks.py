"""A functional model as a chain of blocks, each with one tensor in and one tensor out."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
from keras.src.utils.naming import to_snake_case  # no public name; see `is_numbered_by_keras`

MAX_BLOCKS = 12

_RESERVED = ("pooling",)  # FrozenBackbone's name for the link behind the last block

# How published architectures name the layers of a stage. Each pattern is searched in a layer's
# name; `{}` is its first group. Layers that match none belong to the stage that they follow.
_STAGE_NAMES = (
    (r"(?:^|_)stem(?:_|$)", "stem"),
    (r"(?:^|_)stage_(\d+)_", "stage_{}"),  # ConvNeXt
    (r"(?:^|_)downsampling_block_(\d+)", "stage_{+1}"),  # opens the next ConvNeXt stage
    (r"^stack(\d+)_", "stack{}"),  # KerasHub ResNets
    (r"^mixed_(\d+[ab])", "mixed_{}"),  # InceptionResNetV2
    (r"^mixed(\d+)$", "mixed{}"),  # InceptionV3 names only the join that ends a stage
    (r"^block(35|17|8)_", "block{}"),  # InceptionResNetV2
    (r"^conv_7b", "conv_7b"),
    (r"^conv_(?:pad|dw|pw)_(\d+)", "unit{}"),  # MobileNet
    (r"^block_(\d+)_", "unit{}"),  # MobileNetV2
    (r"^expanded_conv_(\d+)", "unit{}"),  # MobileNetV3
    (r"^expanded_conv_", "unit0"),
    (r"^block(\d+)[a-z]?_", "block{}"),  # VGG, Xception, EfficientNet
    (r"^(?:conv|pool)1(?:_|$)|^Conv1", "stem"),
    (r"^(?:conv|pool)([2-9])_", "conv{}"),  # ResNet, DenseNet
    (r"^top_|^[Cc]onv_1|^head_", "top"),
    (r"^(?:normal|reduction)_", "cells"),  # NASNet: each cell reads the two before it, so no cuts
)


@dataclass(frozen=True)
class Block:
    """What there is to know about one block of a backbone.

    Attributes:
        name: The name that `unfreeze` and `BlockUnfreezer` take.
        parameters: Number of weights, statistics included.
        output_shape: Shape of the block's output, batch axis first; `None` where it depends on
            the image size. Of a group of variables in a module, that of the module.
        frozen: Whether training leaves the block as it is.
    """

    name: str
    parameters: int
    output_shape: tuple[int | None, ...]
    frozen: bool


class Unit(Protocol):
    """What is frozen and unfrozen by itself: a block, or a group of variables inside one."""

    name: str
    trainable: bool

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """As of `Block`."""

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train."""

    def count_params(self) -> int:
        """Returns the number of weights, statistics included."""


class NormalizedBlock:
    """Joins the last block and the normalization behind the pooling to one unit.

    Args:
        block: The block.
        norm: The layer that normalizes.
    """

    def __init__(self, block: Unit, norm: keras.Layer) -> None:
        self.name = block.name
        self.block = block
        self.norm = norm

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of what is pooled."""
        return self.block.output_shape

    @property
    def trainable(self) -> bool:
        """Whether both train."""
        return self.block.trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.block.trainable = self.norm.trainable = value

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that train, those of the normalization last."""
        return [*self.block.trainable_weights, *self.norm.trainable_weights]

    def count_params(self) -> int:
        """Returns the number of weights."""
        return self.block.count_params() + self.norm.count_params()


def units(block: keras.Model) -> tuple[Unit, ...]:
    """Returns what of a block can be frozen by itself, first to last.

    That is the block, unless all its weights are those of one layer that has `groups`: a module
    whose graph cannot be cut, though its variables tell where they belong.
    """
    weights = {id(weight) for weight in block.weights}
    for layer in _layers(block):
        groups = getattr(layer, "groups", ())
        is_whole = weights == {id(weight) for weight in layer.weights}
        # Keras' own convolutions have `groups`, too: a number.
        if isinstance(groups, tuple) and groups and is_whole:
            return groups
    return (block,)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


@dataclass(frozen=True)
class _Segment:
    """The layers between two neighbouring cut points."""

    operations: tuple[Any, ...]
    start: Any
    end: Any

    @property
    def stage(self) -> str | None:
        """The last stage that a layer's name speaks of: joins and norms end a stage."""
        names = (stage_of(_without_number(operation)) for operation in reversed(self.operations))
        return next((name for name in names if name is not None), None)

    @property
    def nested(self) -> str | None:
        """The name of a model that the segment ends with: a stage to whoever nested it."""
        last = self.operations[-1]
        return last.name if isinstance(last, keras.Model) else None

    @property
    def downsamples(self) -> bool:
        """Whether the segment makes the feature map smaller, at any image size."""
        return any(max(_as_tuple(_strides(operation))) > 1 for operation in self.operations)


def is_numbered_by_keras(operation: Any) -> bool:
    """Returns whether Keras made up the name of a layer or model, such as `conv2d_5`.

    Such a name depends on how many of its class were built before in the process, so nothing that
    is saved may be found again by it.
    """
    return re.fullmatch(_class_name(operation) + r"(_\d+)?", operation.name) is not None


def _class_name(operation: Any) -> str:
    return to_snake_case(type(operation).__name__)


def _without_number(operation: Any) -> str:
    return _class_name(operation) if is_numbered_by_keras(operation) else operation.name


def stage_of(layer_name: str) -> str | None:
    """Returns the name of the stage that a layer's name speaks of, `None` if it speaks of none."""
    for pattern, stage in _STAGE_NAMES:
        match = re.search(pattern, layer_name)
        if match:
            if "{+1}" in stage:
                return stage.replace("{+1}", str(int(match[1]) + 1))
            return stage.format(*match.groups())
    return None


def split(model: keras.Model) -> dict[str, keras.Model]:
    """Splits a model into blocks at the tensors through which everything passes.

    A tensor is a cut point when it is the only one alive at its place of the topological order,
    and no layer is called on both sides of it: every layer belongs to one block.
    The stretches between cut points are put together by the stage that their layers' names speak
    of, then, while there are more than 12, by resolution.

    Args:
        model: A functional model with one input and one output. The blocks share its layers.

    Returns:
        Block name to model, first block first. A model without a cut point is one block under its
        own name. A block whose name would be one that Keras made up is `block<number>`, its place
        in the chain counted from 1.

    Raises:
        ValueError: If the model has several inputs or outputs.
    """
    groups = _groups(model)
    return {
        name: keras.Model(group[0].start, group[-1].end, name=name)
        for name, (_, group) in zip(_block_names(model, groups), groups, strict=True)
    }


def former_names(model: keras.Model) -> dict[str, str]:
    """Returns the names that Keras made up for layers, which earlier versions gave to blocks.

    Args:
        model: As for `split`.

    Returns:
        Former name to name, without those that are the name of a block still.
    """
    groups = _groups(model)
    former = _unique(name for name, _ in groups)
    names = list(_block_names(model, groups))
    return {old: new for old, new in zip(former, names, strict=True) if old not in names}


def _groups(model: keras.Model) -> list[tuple[str, list[_Segment]]]:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        named = isinstance(model.output, dict)
        wanted = f"output[{next(iter(model.output))!r}]" if named else "outputs[0]"
        raise ValueError(
            f"A backbone needs one input and one output. Received: model '{model.name}' with "
            f"{len(model.inputs)} inputs and {len(model.outputs)} outputs of shapes "
            f"{model.output_shape}. Build one with the tensor that you want: "
            f"keras.Model(model.inputs[0], model.{wanted})."
        )
    groups = _named_groups(list(_segments(model)))
    return [(model.name, groups[0][1])] if len(groups) == 1 else groups


def _block_names(model: keras.Model, groups: Sequence[tuple[str, list[_Segment]]]) -> Iterator[str]:
    operations = [
        model,
        *(o for _, group in groups for segment in group for o in segment.operations),
    ]
    made_up = {
        operation.name
        for operation in operations
        if is_numbered_by_keras(operation) and stage_of(_without_number(operation)) is None
    }
    return _unique(
        f"block{number}" if name in made_up else name for number, (name, _) in enumerate(groups, 1)
    )


def without_last_layer(model: keras.Model) -> tuple[keras.Model, keras.Layer]:
    """Returns the model up to its last layer, and that layer."""
    *_, last = _segments(model)
    return keras.Model(model.inputs, last.start, name=model.name), last.operations[-1]


def _segments(model: keras.Model) -> Iterator[_Segment]:
    # Keras offers the order of execution of a Function under this private name only: a public
    # `layer.output` is ambiguous for a layer that was called twice, as every layer of a model is
    # once a model of its inner tensors has been made.
    nodes = [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
        if not node.is_input
    ]
    start, operations = model.inputs[0], []
    last_use = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.input_tensors}
    last_use[id(model.outputs[0])] = len(nodes)
    last_call = {id(node.operation): i for i, node in enumerate(nodes)}
    open_until = 0
    alive = {id(start)}
    for i, node in enumerate(nodes):
        operations.append(node.operation)
        alive |= {id(tensor) for tensor in node.output_tensors}
        alive = {tensor for tensor in alive if last_use.get(tensor, -1) > i}
        end = node.output_tensors[0]
        open_until = max(open_until, last_call[id(node.operation)])
        if alive == {id(end)} and open_until == i:
            yield _Segment(tuple(operations), start, end)
            start, operations = end, []


def _named_groups(segments: Sequence[_Segment]) -> list[tuple[str, list[_Segment]]]:
    if any(segment.stage for segment in segments):
        groups = _by_stage(segments)
    else:
        groups = [(segment.operations[-1].name, [segment]) for segment in segments]
    if len(groups) > MAX_BLOCKS or any(name.startswith("unit") for name, _ in groups):
        groups = _by_resolution(groups)
    return _without_weightless_groups(groups)


def _by_stage(segments: Sequence[_Segment]) -> list[tuple[str, list[_Segment]]]:
    groups: list[tuple[str, list[_Segment]]] = []
    for segment in segments:
        stage = segment.stage or segment.nested or (groups[-1][0] if groups else "stem")
        if groups and groups[-1][0] == stage:
            groups[-1][1].append(segment)
        else:
            groups.append((stage, [segment]))
    return groups


def _by_resolution(
    groups: Sequence[tuple[str, list[_Segment]]],
) -> list[tuple[str, list[_Segment]]]:
    """Joins neighbours until a group opens a smaller feature map; `stem` and `top` stay."""
    joined: list[tuple[str, list[_Segment]]] = []
    stages = 0
    for name, group in groups:
        kept = name in ("stem", "top")
        opens = any(segment.downsamples for segment in group)
        if kept or opens or not joined or joined[-1][0] in ("stem", "top"):
            stages += not kept
            joined.append((name if kept else f"stage{stages}", list(group)))
        else:
            joined[-1][1].extend(group)
    return joined


def _without_weightless_groups(
    groups: Sequence[tuple[str, list[_Segment]]],
) -> list[tuple[str, list[_Segment]]]:
    """Joins layers without weights to the block before them, the first ones to the block behind."""
    kept: list[tuple[str, list[_Segment]]] = []
    has_weights = False
    for name, group in groups:
        weights = sum(
            len(getattr(operation, "weights", ()))
            for segment in group
            for operation in segment.operations
        )
        if not kept or (weights and has_weights):
            kept.append((name, list(group)))
        elif weights:
            kept[-1] = (name, [*kept[-1][1], *group])
        else:
            kept[-1][1].extend(group)
        has_weights = has_weights or weights > 0
    return kept


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Numbers the names that come back: a stage that was left and is entered again."""
    taken = set(_RESERVED)
    for name in names:
        unique = name
        for number in itertools.count(2):
            if unique not in taken:
                break
            unique = f"{name}_{number}"
        taken.add(unique)
        yield unique


def _strides(operation: Any) -> Any:
    # Of keras.ops.max_pool and average_pool, `strides=None` means the size of the window.
    return getattr(operation, "strides", 1) or getattr(operation, "pool_size", 1)


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)


Which = str | int | Sequence[str]
