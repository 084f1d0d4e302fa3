"""The description of a module in a model file: it can be built without its graph."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from keras_transfer.backbones.hub import download
from keras_transfer.backbones.hub.files import DamagedModule, GraphFiles, is_tf_keras
from keras_transfer.backbones.hub.saved_model import ModuleGraph, load_graph
from keras_transfer.backbones.hub.variable_groups import variable_groups
from keras_transfer.utils.config_limits import check_memory


@dataclass(frozen=True)
class VariableSpec:
    """One variable of a module.

    Attributes:
        name: Its name in the module, scopes included.
        shape: Its shape.
        dtype: Its type.
        trainable: Whether it can train.
        group: The group that it is frozen and unfrozen with; `None` if there are none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    group: str | None


@dataclass(frozen=True)
class ModuleSpec:
    """A module's variables, and what it takes and gives.

    Attributes:
        graph: Digest of the files that make its graph.
        variables: Its variables.
        groups: The names of their groups, first to last.
        given_shape: Shape of the images that it takes, batch axis first.
        given_dtype: Type of the images that it takes.
        output_shape: Shape of what it gives, batch axis first.
        pixels: The range of its pixels as a mode of `preprocessing`, `None` if it is not known.
    """

    graph: str
    variables: tuple[VariableSpec, ...]
    groups: tuple[str, ...]
    given_shape: tuple[int | None, ...]
    given_dtype: str
    output_shape: tuple[int | None, ...]
    pixels: str | None

    @classmethod
    def of(
        cls,
        graph: ModuleGraph,
        digest: str,
        output_shape: Sequence[int | None],
        pixels: str | None,
    ) -> Self:
        """Returns that of a loaded graph."""
        grouped = _groups(graph)
        return cls(
            graph=digest,
            variables=tuple(
                VariableSpec(_name(v), tuple(v.shape), v.dtype.name, trains, group)
                for v, trains, group in zip(graph.variables, graph.trainable, grouped, strict=True)
            ),
            groups=tuple(dict.fromkeys(filter(None, (grouped[i] for i in graph.order)))),
            given_shape=images_of(graph),
            given_dtype=graph.given.dtype.name,
            output_shape=tuple(output_shape),
            pixels=pixels,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes it of a dict of plain values.

        Raises:
            ValueError: If its variables take more memory than there is.
        """
        variables = tuple(
            VariableSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in config["variables"]
        )
        check_memory([spec.shape for spec in variables], "The module")
        shapes = {key: tuple(config[key]) for key in ("groups", "given_shape", "output_shape")}
        return cls(**{**config, **shapes, "variables": variables})

    def check(self, graph: ModuleGraph) -> None:
        """Checks that a graph has these very variables.

        Raises:
            ValueError: If it has others.
        """
        actual = [(_name(v), tuple(v.shape), v.dtype.name) for v in graph.variables]
        expected = [(v.name, v.shape, v.dtype) for v in self.variables]
        if actual != expected:
            differing = next(((a, b) for a, b in zip_longest(actual, expected) if a != b))
            raise ValueError(
                f"The module's graph has other variables than the file says: {differing[0]} in "
                f"the place of {differing[1]}. The file is damaged, or was put together of two."
            )


def images_of(graph: ModuleGraph) -> tuple[int | None, ...]:
    """Returns the shape of the images that a graph takes; of unknown channels, three."""
    shape = graph.given.shape
    if shape.rank is None:
        return (None, None, None, 3)
    return (*shape[:-1], shape[-1] or 3)


def _groups(graph: ModuleGraph) -> Sequence[str | None]:
    ordered = [graph.variables[i] for i in graph.order]
    trainable = [graph.trainable[i] for i in graph.order]
    sizes = [variable.shape.num_elements() for variable in ordered]
    groups = variable_groups([_name(v) for v in ordered], sizes, trainable)
    grouped: list[str | None] = [None] * len(ordered)
    for i, group in zip(graph.order, groups or (), strict=groups is not None):
        grouped[i] = group
    return grouped


def _name(variable: Any) -> str:
    return variable.name.split(":")[0]


_ANY_SIZE = 224  # to try a module on, where its signature leaves the size open


def load_module(
    handle: str | os.PathLike[str], call: dict[str, Any]
) -> tuple[ModuleGraph, GraphFiles, ModuleSpec]:
    """Loads a module, and checks that it can be a layer.

    Args:
        handle: As for `HubModule`.
        call: `signature`, `output` and `arguments`, as for `HubModule`.

    Raises:
        OSError: If it cannot be had, or is damaged.
        ValueError: If it is no module of images that leaves its variables alone.
    """
    folder = download.folder_of(handle)
    try:
        graph = load_graph(folder, **call)
    except DamagedModule as error:
        folder = download.folder_of(handle, damage=str(error))
        graph = load_graph(folder, **call)
    if graph.given.shape.rank and graph.given.shape[0] is not None:
        raise ValueError(
            f"The module takes batches of exactly {graph.given.shape[0]} images. Expected one for "
            "batches of any size: export it again with None as its first axis."
        )
    before = [variable.numpy() for variable in graph.variables]
    output_shape: tuple[int | None, ...] = tried(
        graph, tuple(side or _ANY_SIZE for side in images_of(graph)[1:3])
    )
    for variable, value in zip(graph.variables, before, strict=True):
        if not np.array_equal(variable.numpy(), value):
            raise ValueError(
                f"The module of {os.fspath(handle)!r} changes its own variables in inference mode. "
                "Expected one whose statistics stay as they are: export it for inference."
            )
    if len(output_shape) not in (2, 4):
        raise ValueError(
            f"The module gives a tensor of shape {output_shape}. Expected features (batch, "
            "channels) or a feature map (batch, height, width, channels); another of its outputs "
            "may be one: HubModule(..., output=...)."
        )
    if None in images_of(graph)[1:3] and len(output_shape) == 4:
        output_shape = (None, None, None, output_shape[-1])
    files = GraphFiles.read(folder)
    spec = ModuleSpec.of(
        graph, files.digest, (None, *output_shape[1:]), _pixels(handle, folder, graph)
    )
    return graph, files, spec


def _pixels(handle: str | os.PathLike[str], folder: Path, graph: ModuleGraph) -> str | None:
    """TF-Hub's modules take 0..1; what another SavedModel takes is known only if it takes bytes."""
    if graph.given.dtype.is_integer:
        return "raw"
    is_of_hub = download.is_remote(handle) or not is_tf_keras(folder)
    return "unit" if graph.is_reusable and is_of_hub else None


def tried(graph: ModuleGraph, size: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of what a graph makes of a black image."""
    with tf.init_scope():  # for real, though a function may be being traced
        black = tf.zeros((1, *size, images_of(graph)[-1]), graph.given.dtype)
        if not tf.distribute.in_cross_replica_context():
            return tuple(graph.run(black).shape)
        strategy = tf.distribute.get_strategy()  # whose variables are read on a device each
        return tuple(
            strategy.experimental_local_results(strategy.run(graph.run, (black,)))[0].shape
        )
