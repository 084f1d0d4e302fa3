"""A functional model as a chain of blocks, each with one tensor in and one tensor out."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_transfer.utils.keras_internals import automatic_name, nodes_of

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
class _Segment:
    """The layers between two neighbouring cut points."""

    operations: tuple[Any, ...]
    start: Any
    end: Any

    @property
    def stage(self) -> str | None:
        """The last stage in the layers' names: joins and normalizations end a stage."""
        stages = (
            stage_of(
                automatic_name(operation) if is_numbered_by_keras(operation) else operation.name
            )
            for operation in reversed(self.operations)
        )
        return next(filter(None, stages), None)

    @property
    def nested(self) -> str | None:
        """The name of a model that the segment ends with: a stage to whoever nested it."""
        last = self.operations[-1]
        return last.name if isinstance(last, keras.Model) else None

    @property
    def downsamples(self) -> bool:
        """Whether the segment makes the feature map smaller, at any image size."""
        # Of keras.ops.max_pool and average_pool, `strides=None` means the size of the window.
        strides = (getattr(o, "strides", 1) or getattr(o, "pool_size", 1) for o in self.operations)
        return any(max(s) > 1 if isinstance(s, list | tuple) else s > 1 for s in strides)

    @property
    def has_weights(self) -> bool:
        """Whether a layer has weights."""
        return any(getattr(operation, "weights", ()) for operation in self.operations)


_Groups = list[tuple[str, list[_Segment]]]


def is_numbered_by_keras(operation: Any) -> bool:
    """Returns whether Keras made up the name of a layer or model, such as `conv2d_5`.

    Such a name depends on how many of its class were built before in the process, so nothing that
    is saved may be found again by it.
    """
    return re.fullmatch(automatic_name(operation) + r"(_\d+)?", operation.name) is not None


def stage_of(layer_name: str) -> str | None:
    """Returns the name of the stage in a layer's name, `None` if there is none."""
    for pattern, stage in _STAGE_NAMES:
        if match := re.search(pattern, layer_name):
            if "{+1}" in stage:
                return stage.replace("{+1}", str(int(match[1]) + 1))
            return stage.format(*match.groups())
    return None


def split(model: keras.Model) -> dict[str, keras.Model]:
    """Splits a model into blocks at the tensors through which everything passes.

    A tensor is a cut point when it is the only one alive at its place of the topological order,
    and no layer is called on both sides of it: every layer belongs to one block. The stretches
    between cut points are put together by the stages in their layers' names, then, while there are
    more than 12, by resolution.

    Args:
        model: A functional model with one input and one output. The blocks share its layers.

    Returns:
        Block name to model, first block first. A model without a cut point is one block under its
        own name. A block whose name would be one that Keras made up is `block<number>`, its place
        in the chain counted from 1.

    Raises:
        ValueError: If the model has several inputs or outputs.
    """
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
    if len(groups) == 1:
        groups = [(model.name, groups[0][1])]
    made_up = {
        operation.name
        for operation in (model, *(o for _, group in groups for s in group for o in s.operations))
        if is_numbered_by_keras(operation) and stage_of(automatic_name(operation)) is None
    }
    names = (
        f"block{number}" if name in made_up else name for number, (name, _) in enumerate(groups, 1)
    )
    return {
        name: keras.Model(group[0].start, group[-1].end, name=name)
        for name, (_, group) in zip(numbered(names), groups, strict=True)
    }


def without_last_layer(model: keras.Model) -> tuple[keras.Model, keras.Layer]:
    """Returns the model up to its last layer, and that layer."""
    *_, last = _segments(model)
    return keras.Model(model.inputs, last.start, name=model.name), last.operations[-1]


def _segments(model: keras.Model) -> Iterator[_Segment]:
    nodes = nodes_of(model)
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


def _named_groups(segments: Sequence[_Segment]) -> _Groups:
    groups: _Groups = []
    has_stages = any(segment.stage for segment in segments)
    for segment in segments:
        name = segment.operations[-1].name
        if has_stages:
            name = segment.stage or segment.nested or (groups[-1][0] if groups else "stem")
        if has_stages and groups and groups[-1][0] == name:
            groups[-1][1].append(segment)
        else:
            groups.append((name, [segment]))
    if len(groups) > MAX_BLOCKS or any(name.startswith("unit") for name, _ in groups):
        groups = _by_resolution(groups)
    return _with_weights(groups)


def _by_resolution(groups: _Groups) -> _Groups:
    """Joins neighbours until a group opens a smaller feature map; `stem` and `top` stay."""
    joined: _Groups = []
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


def _with_weights(groups: _Groups) -> _Groups:
    """Joins groups without weights to the one before them, the first ones to the one behind."""
    joined: _Groups = []
    for name, group in groups:
        weighted = any(segment.has_weights for segment in group)
        if not joined or (weighted and any(segment.has_weights for segment in joined[-1][1])):
            joined.append((name, group))
        else:
            joined[-1] = (name if weighted else joined[-1][0], [*joined[-1][1], *group])
    return joined


def numbered(names: Iterable[str]) -> Iterator[str]:
    """Yields names, with a number for those that come again: `block1`, `block2`, `block1_2`."""
    taken = set(_RESERVED)
    for name in names:
        more = (f"{name}_{number}" for number in itertools.count(2))
        unique = next(one for one in itertools.chain([name], more) if one not in taken)
        taken.add(unique)
        yield unique
