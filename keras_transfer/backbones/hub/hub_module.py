"""HubModule: a TF-Hub module or a SavedModel of images as a native Keras layer."""

import contextlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf

from keras_transfer.backbones.hub import download
from keras_transfer.backbones.hub.files import GRAPH, DamagedModule, GraphFiles
from keras_transfer.backbones.hub.module_spec import ModuleSpec, VariableSpec, load_module, tried
from keras_transfer.backbones.hub.saved_model import ModuleGraph, load_graph, read_variables
from keras_transfer.backbones.hub.variable_groups import VariableGroup
from keras_transfer.utils.keras_internals import declare_functions, in_safe_mode, in_symbolic_scope

# Graphs that the user has loaded in this process, so that a layer can be cloned.
_LOADED: weakref.WeakValueDictionary[str, GraphFiles] = weakref.WeakValueDictionary()
_is_cloning: ContextVar[bool] = ContextVar("is_cloning", default=False)


@keras.saving.register_keras_serializable(package="keras_transfer")
class HubModule(keras.layers.Layer):
    """A TF-Hub module, or any SavedModel of images, as a native Keras layer.

    Its variables are Keras variables: `summary`, saving, optimizers and freezing see them. It is
    frozen at first, and always runs in inference mode, so that its statistics never move. Its
    regularization losses count while a variable trains that they are a loss of.

    What can train is what a TF-Hub module lists as trainable. Of any other SavedModel it is what
    was made to train, though it may have been frozen when it was exported.

    A `FrozenBackbone` takes a handle itself; a `HubModule` is for what a handle does not say.

    Args:
        handle: An address, on tfhub.dev, Kaggle or any web server, fetched into the cache; a
            SavedModel folder; or a `.tar.gz` of one, unpacked there.
        signature: The signature to call, for a SavedModel that has several; `None` for a TF-Hub
            module's `__call__`, or the only signature.
        output: The key of the output, for a module that gives several tensors.
        arguments: What a TF-Hub module's `__call__` takes besides images and `training`, as plain
            values.
        trainable: Whether it trains, as for any Keras layer.
        specification: What a model file says of the module, in the place of `handle`.
        **kwargs: As for any Keras layer.

    Input: Images `(batch, height, width, 3)` in the range of the module: 0..1 for TF-Hub's. Of the
        size of its signature, where that has one.
    Output: Features `(batch, channels)`, or a map `(batch, height, width, channels)`.

    Raises:
        OSError: If the module cannot be had, or is damaged. The message says what to do.
        ValueError: If it is no module of images with one input, several outputs are not told
            apart, its statistics move in inference mode, or a file that is not trusted asks for it.

    Example:
        >>> module = HubModule("inception/", output="InceptionV1/Mixed_5c")
        >>> backbone = FrozenBackbone(module, pooling="avg")
        >>> [block.name for block in backbone.blocks]
        ['stem', 'mixed_3b', 'mixed_4b', 'mixed_5b']
    """

    def __init__(
        self,
        handle: str | os.PathLike[str] | None,
        *,
        signature: str | None = None,
        output: str | int | None = None,
        arguments: Mapping[str, Any] | None = None,
        trainable: bool = False,
        specification: ModuleSpec | None = None,
        **kwargs: Any,
    ) -> None:
        if handle is not None and in_safe_mode():
            raise ValueError(_NOT_TRUSTED.format(f"asks for the module {os.fspath(handle)!r}"))
        call = {"signature": signature, "output": output, "arguments": arguments}
        graph = None
        if specification is None:
            if handle is None:
                raise ValueError("HubModule(None): expected an address, a folder or a .tar.gz.")
            graph, files, specification = load_module(handle, call)
            kwargs.setdefault("name", download.name_of(handle))
            # It computes in the type of its signature, whatever the policy is.
            floating = tf.as_dtype(specification.given_dtype).is_floating
            kwargs.setdefault("dtype", specification.given_dtype if floating else "float32")
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False  # XLA may lack an operation of a graph that others made
        self.signature = signature
        self.output_key = output
        self.arguments = dict(arguments or {})
        self.specification = specification
        self._sizes: dict[tuple[int, int], tuple[int | None, ...]] = {}
        self._graph: ModuleGraph | None = None
        self._damage: str | None = None
        values = graph.variables if graph else [None] * len(specification.variables)
        self._adopted = [
            _adopted(spec, value)
            for spec, value in zip(specification.variables, values, strict=True)
        ]
        if graph is not None:
            self._take(graph, files)
        self.trainable = trainable
        self.built = True

    def _take(self, graph: ModuleGraph, files: GraphFiles) -> None:
        # Layers of one graph share its files, so that it is known as long as any of them is there.
        self._graph, self._files = graph, _LOADED.setdefault(files.digest, files)

    @property
    def pixels(self) -> str | None:
        """The range of its pixels, as a mode of `FrozenBackbone`'s `preprocessing`."""
        return self.specification.pixels

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Height, width and channels of the images that it takes; `None` for any."""
        return self.specification.given_shape[1:]

    @property
    def groups(self) -> tuple[VariableGroup, ...]:
        """The groups of variables that are frozen together, made from their names."""
        specs = self.specification.variables
        return tuple(
            VariableGroup(
                name,
                self,
                [v for v, spec in zip(self._adopted, specs, strict=True) if spec.group == name],
                [spec.trainable for spec in specs if spec.group == name],
            )
            for name in self.specification.groups
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the module in inference mode, whatever `training` is."""
        shape = self.compute_output_shape(tuple(inputs.shape))
        if self._graph is None:
            if in_symbolic_scope():  # only the shape is asked for, while a file is being loaded
                return keras.ops.zeros([side or 1 for side in shape], self.compute_dtype)
            raise ValueError(
                f"Module '{self.name}' has no graph: it was made from a config alone, or from a "
                "file that lacks it. Load the whole .keras file that was saved, with "
                "keras.saving.load_model(path, safe_mode=False)."
            )
        outputs = self._graph.run(_as(self.specification.given_dtype, inputs))
        outputs.set_shape(shape)
        training_ids = {id(variable.value) for variable in self.trainable_weights}
        for regularizer in self._graph.regularizers:
            if training_ids.intersection(map(id, regularizer.variables)):
                self.add_loss(regularizer.loss())
        declare_functions()
        return keras.ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output; that of a map for an image size is found by trying."""
        expected, given = self.specification.given_shape, tuple(input_shape)
        differs = [a != b for a, b in zip(expected, given, strict=False) if a and b]
        if len(given) != 4 or any(differs):
            raise ValueError(
                f"Module '{self.name}' takes images of shape {expected}. Received: {given}. "
                "keras.layers.Resizing, or image_folder(image_size=...), brings them to a size."
            )
        output, (height, width) = self.specification.output_shape[1:], given[1:3]
        if None in output and height is not None and width is not None:
            size = (height, width)
            if size not in self._sizes and self._graph is not None:
                self._sizes[size] = tried(self._graph, size)[1:]
            output = self._sizes.get(size, output)
        return (given[0], *output)

    def get_config(self) -> dict[str, Any]:
        """Returns what the module is, and no place to load it from."""
        return {
            **super().get_config(),
            "signature": self.signature,
            "output": self.output_key,
            "arguments": dict(self.arguments),
            "specification": asdict(self.specification),
            "known_shapes": [[list(size), list(out)] for size, out in sorted(self._sizes.items())],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes the layer again; its graph comes from the model file that is being loaded.

        Raises:
            ValueError: If nobody has said that the file is trusted, or the config names a place to
                load a module from.
        """
        config = dict(config)
        sizes = config.pop("known_shapes", ())
        if "handle" in config or not isinstance(config.get("specification"), Mapping):
            raise ValueError(
                "The config of a HubModule names no place to load from. Received: "
                f"{config.get('handle')!r}. Nothing was loaded; the file was tampered with."
            )
        config["specification"] = ModuleSpec.from_config(config["specification"])
        known = _LOADED.get(config["specification"].graph)
        is_clone = known is not None and (_is_cloning.get() or in_safe_mode() is None)
        if not is_clone and in_safe_mode() is not False:
            raise ValueError(_NOT_TRUSTED.format(f"carries the module '{config.get('name')}'"))
        layer = cls(None, **config)
        layer._sizes = {tuple(size): tuple(output) for size, output in sizes}
        if is_clone and known is not None:
            layer._load(known)
        return layer

    def save_assets(self, store: str) -> None:
        """Writes the graph into a model file."""
        if self._graph is None:
            raise ValueError(f"Module '{self.name}' has no graph to save.")
        self._files.write(Path(store))

    def load_assets(self, store: str | None) -> None:
        """Reads the graph from a model file. The variables have their values already."""
        files = None
        if store is not None and (Path(store) / GRAPH).is_file():
            files = GraphFiles.read(Path(store))
        elif self._damage is None:
            self._damage = (
                f"The file lacks the graph of module '{self.name}': {store} holds no {GRAPH}. Save "
                "the model again, as a whole."
            )
        if files is not None and files.digest != self.specification.graph:
            self._damage = (
                f"The graph of module '{self.name}' is not the one that the file's config names. "
                "The file is damaged, or was put together of two; nothing of it was run."
            )
        # Keras tries again elsewhere in the file, and would report that attempt only.
        if self._damage is not None:
            raise DamagedModule(self._damage)
        if self._graph is None and files is not None:
            self._load(files)

    def _load(self, files: GraphFiles) -> None:
        """Loads the graph, and lets it read the variables that this layer has."""
        home = Path(tempfile.mkdtemp(prefix="keras_transfer_"))
        # Its assets are read again when the model is exported, so it stays as long as the layer.
        weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        files.write(home)
        graph = load_graph(
            home,
            signature=self.signature,
            output=self.output_key,
            arguments=self.arguments,
            values=False,
        )
        self.specification.check(graph)
        self._take(read_variables(graph, [mine.value for mine in self._adopted]), files)


@contextlib.contextmanager
def cloning() -> Iterator[None]:
    """Allows copies of modules from loaded graphs, except while a model file is loaded."""
    token = _is_cloning.set(_is_cloning.get() or in_safe_mode() is None)
    try:
        yield
    finally:
        _is_cloning.reset(token)


_NOT_TRUSTED = (
    "The model file {}. Loading a SavedModel runs whatever its author put into it, so Keras' safe "
    "mode refuses it, and nothing was loaded. If you trust where the file comes from: "
    "keras.saving.load_model(path, safe_mode=False)."
)


def _adopted(spec: VariableSpec, value: Any) -> keras.Variable:
    """Returns a Keras variable with the name and the value of a variable of the module."""
    *scopes, name = (re.sub(r"[^\w.-]", "_", part) for part in spec.name.split("/"))
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(
            np.zeros(spec.shape, spec.dtype) if value is None else value,
            dtype=spec.dtype,
            trainable=spec.trainable,
            autocast=False,
            name=name,
        )


def _as(dtype: str, images: Any) -> Any:
    if keras.backend.is_int_dtype(dtype):
        images = keras.ops.clip(keras.ops.round(keras.ops.cast(images, "float32")), 0, 255)
    return keras.ops.cast(images, dtype)
