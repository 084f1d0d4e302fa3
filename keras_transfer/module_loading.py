"""From a handle to a module: its graph, the files of it, and what a model file says of it."""

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_transfer import hub_source
from keras_transfer.module_graph import ModuleGraph, load_graph, moves_variables
from keras_transfer.module_spec import ModuleSpec, images_of
from keras_transfer.saved_model_files import DamagedModule, GraphFiles, is_tf_keras

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
    folder = hub_source.folder_of(handle)
    try:
        graph = load_graph(folder, **call)
    except DamagedModule as error:
        folder = hub_source.folder_again(handle, str(error))
        try:
            graph = load_graph(folder, **call)
        except DamagedModule as again:
            raise DamagedModule(f"What {os.fspath(handle)!r} gives is damaged: {again}") from again
    if graph.given.shape.rank and graph.given.shape[0] is not None:
        raise ValueError(
            f"The module takes batches of exactly {graph.given.shape[0]} images. Expected one for "
            "batches of any size: export it again with None as its first axis."
        )
    size = tuple(side or _ANY_SIZE for side in images_of(graph)[1:3])
    if moves_variables(graph, lambda: tried(graph, size)):
        raise ValueError(
            f"The module of {os.fspath(handle)!r} changes its own variables in inference mode. "
            "Expected one whose statistics stay as they are: export it for inference."
        )
    files = GraphFiles.read(folder)
    spec = ModuleSpec.of(
        graph, files.digest, _output_shape(graph, size), _pixels(handle, folder, graph)
    )
    return graph, files, spec


def _pixels(handle: str | os.PathLike[str], folder: Path, graph: ModuleGraph) -> str | None:
    """TF-Hub's modules take 0..1; what another SavedModel takes is known only if it takes bytes."""
    if graph.given.dtype.is_integer:
        return "raw"
    is_of_hub = hub_source.is_remote(handle) or not is_tf_keras(folder)
    return "unit" if graph.is_reusable and is_of_hub else None


def _output_shape(graph: ModuleGraph, size: tuple[int, ...]) -> tuple[int | None, ...]:
    shape = graph.gives.shape
    is_fixed = None not in images_of(graph)[1:]
    if shape.rank is None or shape[-1] is None or (is_fixed and None in shape[1:]):
        found = tried(graph, size)
        is_map = len(found) == 4 and not is_fixed
        shape = (None, None, None, found[-1]) if is_map else (None, *found[1:])
    if len(shape) not in (2, 4):
        raise ValueError(
            f"The module gives a tensor of shape {tuple(shape)}. Expected features (batch, "
            "channels) or a feature map (batch, height, width, channels); another of its outputs "
            "may be one: HubModule(..., output=...)."
        )
    return (None, *shape[1:])


def tried(graph: ModuleGraph, size: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of what a graph makes of a black image."""
    with tf.init_scope():  # for real, though a function may be being traced
        black = tf.zeros((1, *size, images_of(graph)[-1]), graph.given.dtype)
        return tuple(graph.run(black).shape)
