"""FrozenBackbone: a pretrained backbone as one layer, a chain of blocks to unfreeze."""

import contextlib
import fnmatch
import hashlib
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import keras
import numpy as np

from keras_transfer.backbones import blocks, registry
from keras_transfer.backbones.blocks import Unit
from keras_transfer.backbones.hub.hub_module import HubModule, cloning
from keras_transfer.backbones.layers import (
    LevelPooling,
    PixelScaling,
    check_finite,
    preprocessing_layer,
    warn_of_range,
    warn_of_raw_pixels,
)
from keras_transfer.data.fingerprints import of_architecture
from keras_transfer.utils.config_limits import check_config
from keras_transfer.utils.supported_keras import check_channels_last, check_keras_3

_AFTER = "after:"

# By the rank of what is pooled: tokens `(batch, tokens, channels)`, or a feature map.
_POOLINGS: Mapping[str | None, Mapping[int, type[keras.layers.Layer]]] = {
    "avg": {3: keras.layers.GlobalAveragePooling1D, 4: keras.layers.GlobalAveragePooling2D},
    "max": {3: keras.layers.GlobalMaxPooling1D, 4: keras.layers.GlobalMaxPooling2D},
    "flatten": dict.fromkeys((3, 4, 5), keras.layers.Flatten),
    "levels": dict.fromkeys((3, 4), LevelPooling),
    None: dict.fromkeys((3, 4, 5), keras.layers.Identity),
}


@keras.saving.register_keras_serializable(package="keras_transfer")
class FrozenBackbone(keras.layers.Layer):
    """A pretrained backbone as one layer: preprocessing, a chain of blocks, pooling.

    All blocks are frozen at first. Every block runs in inference mode, frozen or not, so the
    statistics of BatchNormalization never move and Dropout inside the backbone never drops.

    Args:
        source: The name of a model of `keras.applications`, `"efficientnet_lite0"`; any
            `keras.Model` with one image in and one tensor out (shared, not copied); the address of
            a TF-Hub module, a SavedModel folder or a `.tar.gz` of one; or a `HubModule`.
        weights: `"imagenet"`, `None` for random weights, or the path of a weights file; ignored
            for a model and a module.
        input_shape: `(height, width, 3)`; `None` for any size, where the architecture allows it.
        pooling: Of the feature map, or the tokens, that the source gives: `"avg"`, `"max"`,
            `"flatten"`, or `None` for none; `"levels"` for averages and maxima of all blocks (see
            `LevelPooling`), which can be kept only while all of them are frozen. A source whose
            output is a vector already is not pooled. As in `keras.applications`, ConvNeXt's last
            normalization comes after the pooling.
        preprocessing: `"auto"` for what the source was trained with; one of `"raw"` (0..255),
            `"unit"` (0..1), `"tf"` (-1..1), `"torch"`, `"caffe"`, `"lite"`; a Keras layer; or
            `None` to pass pixels on as they are.
        **kwargs: As for any Keras layer.

    Input: Raw RGB images `(batch, height, width, 3)`, 0..255, uint8 or floating point. Or kept
        activations, `{"after:<block>": tensor}` as `activations` returns them: the chain then
        starts behind that block.
    Output: Features `(batch, channels)`; without pooling what the source gives, mostly
        `(batch, height, width, channels)`.

    Raises:
        ValueError: If the source, the pooling or the preprocessing is unknown, or if
            `preprocessing="auto"` is asked of a model of which nothing is known.
        OSError: If pretrained weights, or a module, cannot be had. The message says what to do.
        ImportError: If a module's address needs `tensorflow_hub`, and it cannot be imported.

    Example:
        >>> backbone = FrozenBackbone("vgg16", weights=None)
        >>> [block.name for block in backbone.blocks]
        ['block1', 'block2', 'block3', 'block4', 'block5']
        >>> backbone.unfreeze("block5")
        >>> backbone(numpy.zeros((2, 64, 64, 3), "uint8")).shape
        TensorShape([2, 512])
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | keras.Model | HubModule = registry.DEFAULT,
        *,
        weights: str | None = "imagenet",
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = "avg",
        preprocessing: str | keras.Layer | None = "auto",
        **kwargs: Any,
    ) -> None:
        if pooling not in _POOLINGS:
            raise ValueError(
                f"Unknown pooling {pooling!r}. Expected 'avg', 'max', 'flatten', 'levels' or None."
            )
        check_keras_3(source=source, preprocessing=preprocessing)
        check_channels_last()
        super().__init__(autocast=False, **kwargs)
        loaded = registry.load(source, weights=weights, input_shape=input_shape)
        check_channels_last(loaded.model.input_shape)
        self.pooling = pooling
        self.preprocessing = preprocessing_layer(_mode(preprocessing, loaded), loaded.dtype)
        self._source = _Opaque(loaded)
        model, norm = loaded.model, loaded.norm
        if norm is not None and pooling == "levels":  # of which only the last is normalized
            model, norm = keras.Model(model.inputs, norm(model.outputs[0]), name=model.name), None
        self._chain = list(blocks.split(model).values())
        self._pool = self._pooling_layer("pooling", norm)
        for link in (*self._chain, self._pool):
            link.trainable = False
        self._watch: Callable[[str, Any], None] | None = None
        self.built = True

    def _pooling_layer(self, name: str | None, norm: keras.Layer | None) -> keras.Layer:
        shape = self._chain[-1].output_shape
        kind = _pooling_kind(self.pooling, shape)
        if norm is None:
            return kind(name=name)
        pools = self.pooling in ("avg", "max")
        layer = keras.Sequential([kind(), norm] if pools else [norm, kind()], name=name)
        layer.build(shape)
        return layer

    @property
    def blocks(self) -> tuple[blocks.Block, ...]:
        """The blocks, first to last: name, parameter count, output shape, frozen or not.

        A TF-Hub module cannot be cut; its blocks are groups of its variables.
        """
        return tuple(
            blocks.Block(unit.name, unit.count_params(), unit.output_shape, not unit.trainable)
            for unit in self._units
        )

    @property
    def border(self) -> str | None:
        """The last link of the frozen part: a block, `"pooling"` when all are, `None` for none.

        What lies up to the border gives the same activations in every epoch.
        """
        return self.border_without(())

    def border_without(self, unfrozen: Collection[str]) -> str | None:
        """Returns what `border` will be when these blocks, too, are not frozen."""
        border, names = None, self.link_names
        for link in self._links[1:]:
            if link.trainable_weights or not _unit_names(link).isdisjoint(unfrozen):
                return border
            border = link.name if link.name in names else border
        return border

    @property
    def link_names(self) -> tuple[str, ...]:
        """The places at which activations can be kept: the blocks, then `"pooling"`.

        With `pooling="levels"` the last of these alone, for it needs what all blocks give.
        """
        names = self._all_names
        return names[-1:] if self._pools_levels else names

    @property
    def _all_names(self) -> tuple[str, ...]:
        return tuple(link.name for link in self._links[1:])

    @property
    def _pools_levels(self) -> bool:
        return isinstance(self._pool, LevelPooling)

    def check_pixels(self, images: Any, *, finite_only: bool = False) -> None:
        """Warns if a batch of images is not in the range that the backbone takes.

        That is raw 0..255, or 0..1 where `preprocessing=None` gives them to a module. With
        `preprocessing=None` on another source, pixels must be finite numbers only; with a layer of
        a user's own, they are not checked.

        Args:
            images: The batch; one of kept activations passes.
            finite_only: Whether to check for NaN and infinite pixels only.

        Raises:
            ValueError: If it is no batch of images, or some pixels are no finite numbers.
        """
        if isinstance(images, Mapping):  # kept activations, which have no pixels
            return
        self._check_images(tuple(images.shape))
        if (check := self._pixel_check) is not None:
            (check_finite if finite_only else check)(images)

    @property
    def _pixel_check(self) -> Callable[[Any], None] | None:
        if isinstance(self.preprocessing, PixelScaling):
            return warn_of_range
        if not self._passes_pixels_on:
            return None
        return warn_of_raw_pixels if self._module_pixels == "unit" else check_finite

    @property
    def _passes_pixels_on(self) -> bool:
        layer = self.preprocessing
        return isinstance(layer, keras.layers.Rescaling) and (layer.scale, layer.offset) == (1, 0)

    @property
    def _module_pixels(self) -> str | None:
        return next((module.pixels for module in self._modules), None)

    @property
    def _modules(self) -> list[HubModule]:
        return [one for one in self._chain[0].layers if isinstance(one, HubModule)]

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Returns what decides the activations after each link: digests of what comes before.

        Raises:
            NotCacheable: If a layer has no config.
        """
        preprocessing = hashlib.blake2b(digest_size=16)
        architecture, weights = preprocessing.copy(), preprocessing.copy()
        found = {}
        for name, link in zip((None, *self._all_names), self._links, strict=True):
            digest = architecture if name else preprocessing
            digest.update(of_architecture(link).encode())
            if link is self._pool and link.weights:  # in earlier versions the last block had them
                weights.update(b"normalizes what was pooled")
            for weight in link.weights:
                weights.update(np.ascontiguousarray(weight.numpy()).tobytes())
            if name in self.link_names:
                found[name] = {
                    "preprocessing": preprocessing.hexdigest(),
                    "architecture": architecture.hexdigest(),
                    "weights": weights.hexdigest(),
                }
        return found

    def links_to(self, name: str) -> tuple[list[keras.Layer], str]:
        """Returns the layers that run one after the other up to a link, and a digest of them.

        Args:
            name: The name of a block, or `"pooling"`.
        """
        links = self._links[: self._index(name) + 1]
        digest = hashlib.blake2b(digest_size=16)
        for link in links:
            digest.update(of_architecture(link).encode())
        return links, digest.hexdigest()

    @property
    def _links(self) -> list[keras.Layer]:
        return [self.preprocessing, *self._chain, self._pool]

    @property
    def _units(self) -> list[Unit]:
        *units, last = (unit for link in self._chain for unit in blocks.units(link))
        return [*units, blocks.NormalizedBlock(last, self._pool) if self._pool.weights else last]

    def unfreeze(self, which: str | int | Sequence[str]) -> None:
        """Makes blocks trainable. A model that is compiled already must be compiled again.

        Args:
            which: A block's name, a glob (`"conv5*"`), a list of these, the number of blocks from
                the top, or `"all"`.

        Raises:
            ValueError: If it matches no block, or none that has weights to train.
        """
        self.check_trains(self.select(which))
        self._set_trainable(which, True)

    def freeze(self, which: str | int | Sequence[str] = "all") -> None:
        """Makes blocks untrainable; `which` as for `unfreeze`."""
        self._set_trainable(which, False)

    def _set_trainable(self, which: str | int | Sequence[str], trainable: bool) -> None:
        names = self.select(which)
        flags = {
            unit.name: trainable if unit.name in names else unit.trainable for unit in self._units
        }
        if trainable:
            self.trainable = True  # or `backbone.trainable = False` would hide what is unfrozen
        for link in self._chain:
            # Keras hands a link's flag down to all that is in it, so that comes first.
            link.trainable = any(flags[name] for name in _unit_names(link))
        for unit in self._units:
            unit.trainable = flags[unit.name]

    def block(self, name: str) -> keras.Model:
        """Returns a block as a model of its own, which shares the layers.

        Raises:
            ValueError: If there is no such block, or it is a group of a module's variables.
        """
        (name,) = self.select([name])
        if name not in self._all_names:
            raise ValueError(
                f"Block {name!r} of backbone '{self.name}' is a group of variables, of which no "
                f"model can be made. Expected one of {list(self._all_names[:-1])}."
            )
        return self._chain[self._all_names.index(name)]

    def block_weights(self, name: str) -> list[keras.Variable]:
        """Returns the weights of a block that train while it is not frozen."""
        (name,) = self.select([name])
        (unit,) = (unit for unit in self._units if unit.name == name)
        was_trainable, unit.trainable = unit.trainable, True
        weights = unit.trainable_weights
        unit.trainable = was_trainable
        return weights

    def check_trains(self, names: Collection[str]) -> None:
        """Checks that one of some blocks, at least, has weights that can train.

        Raises:
            ValueError: If none has, such as those of a module that declares none.
        """
        chosen = [unit for unit in self._units if unit.name in names]
        if any(self.block_weights(unit.name) for unit in chosen):
            return
        if not any(unit.count_params() for unit in chosen):
            return  # there is nothing that could stay as it is
        why, what = "they hold statistics or constants only", "Expected blocks with weights."
        if self._modules:
            why = "the module declares no trainable variables"
            what = (
                "It can be used frozen. To train it, too, export it again with its weights in "
                "`trainable_variables`, or take another version of it."
            )
        raise ValueError(
            f"Nothing in {', '.join(names)} of backbone '{self.name}' can train: {why}. {what}"
        )

    def pool(self, feature_map: Any) -> Any:
        """Pools the output of the last block, as `call` does.

        Raises:
            ValueError: With `pooling="levels"`, which takes more than that.
        """
        if self._pools_levels:
            raise ValueError(
                f"Backbone '{self.name}' pools the outputs of all its blocks (pooling='levels'), "
                "not that of the last alone. Call it on images."
            )
        norm = self._source.value.norm
        return self._pooling_layer(None, norm and _copy_of(norm, name=None))(feature_map)

    def up_to(self, after: str) -> Self:
        """Returns the chain up to a link as a backbone of its own, which shares the layers.

        Args:
            after: The last block of it, unpooled; or `"pooling"` for the whole.
        """
        if after == self._pool.name:
            return self
        first = self._chain[0]
        x = images = keras.Input(first.input_shape[1:])
        for block in self._chain[: self._index(after)]:
            x = block(x)
        lower = keras.Model(images, x, name=first.name)
        unfrozen = self._unfrozen
        backbone = type(self)(
            lower, pooling=None, preprocessing=self.preprocessing, name=f"{self.name}_up_to_{after}"
        )
        if unfrozen:  # the new one has frozen what it shares with this one
            self.unfreeze(unfrozen)
        return backbone

    def twin(self, own: str | int | Sequence[str] = (), *, pooling: str | None = "same") -> Self:
        """Returns a backbone that shares its blocks with this one, but for copies of some.

        What trains on one backbone after the other can leave it as it is, at the cost of what it
        trains: each training gets a twin with own copies of the blocks that it unfreezes.

        Args:
            own: The blocks to copy, as for `unfreeze`; none unless given. Of a module, whose groups
                of variables cannot be cut, all is copied.
            pooling: As for `FrozenBackbone`; `"same"` for that of this one.

        Returns:
            A backbone with the same weights and names, frozen.

        Raises:
            ValueError: If a block of this one is not frozen, or `own` matches no block.
        """
        if unfrozen := self._unfrozen:
            raise ValueError(
                f"Backbone '{self.name}' cannot share what trains: {', '.join(unfrozen)}. Freeze "
                "it first; the twin's blocks can then be unfrozen."
            )
        names = set(self.select(own)) if own not in ((), []) else set()
        source = self._source.value
        if source.norm is not None and self._units[-1].name in names:
            source = replace(source, norm=_copy_of(source.norm))
        twin = type(self)(
            source,
            pooling=self.pooling if pooling == "same" else pooling,
            preprocessing=self.preprocessing,
            name=self.name,
        )
        chain = [
            link if names.isdisjoint(_unit_names(link)) else _copy_of(link) for link in twin._chain
        ]
        twin._chain.clear()  # item by item, Keras would not track what takes its place
        twin._chain.extend(chain)
        return twin

    def select(self, which: str | int | Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the blocks that `which` stands for, first to last.

        Args:
            which: As for `unfreeze`.

        Raises:
            ValueError: If it, or an item of it, matches no block. The message lists the blocks.
        """
        names = [unit.name for unit in self._units]
        if isinstance(which, int) and not isinstance(which, bool) and 0 < which <= len(names):
            return tuple(names[-which:])
        listed = isinstance(which, Sequence) and not isinstance(which, str) and len(which) > 0
        chosen: set[str] = set()
        for pattern in which if listed else [which]:  # type: ignore[union-attr]
            matches = _matches(pattern, names)
            if not matches and (former := self.former_names):
                matches = [former[name] for name in _matches(pattern, list(former))]
                if matches:
                    warn_of_number(pattern, ", ".join(map(repr, matches)))
            if not matches:
                raise ValueError(
                    f"No block of backbone '{self.name}' matches {pattern!r}. Expected one of its "
                    f"{len(names)} blocks ({', '.join(names)}), a glob, a list of these, a number "
                    f"of blocks from the top (1 to {len(names)}), or 'all'."
                )
            chosen.update(matches)
        return tuple(name for name in names if name in chosen)

    @property
    def former_names(self) -> Mapping[str, str]:
        """Former block names, which Keras made up for layers, to the names of these blocks now.

        They depend on what else was built in the process.
        """
        names = [unit.name for unit in self._units]
        former = blocks.former_names(self._source.value.model)
        return {old: new for old, new in former.items() if new in names}

    def call(self, inputs: Any) -> Any:
        """Runs the chain on images, or what is left of it on kept activations."""
        return self._run(inputs, to=self._pool.name)

    def activations(self, inputs: Any, *, after: str) -> dict[str, Any]:
        """Runs the chain up to a link, and returns what `call` can go on from.

        Args:
            inputs: Images, or kept activations from further down the chain.
            after: The name of a block, or `"pooling"` for the features.

        Returns:
            `{"after:<block>": tensor}`.

        Raises:
            ValueError: If there is no such link, or the inputs lie beyond it.
        """
        return {_AFTER + after: self._run(inputs, to=after)}

    def _run(self, inputs: Any, to: str) -> Any:
        start, x = self._entry(inputs)
        stop = self._index(to)
        if start > stop + 1:
            raise ValueError(f"Activations {list(inputs)} lie beyond {to!r}: give earlier ones.")
        levels: list[Any] = []
        for link in self._links[start : stop + 1]:
            x = link(levels[1:] if isinstance(link, LevelPooling) else x, training=False)
            levels += [x] if self._pools_levels else []
            if self._watch is not None:
                self._watch(link.name, x)
        return x

    @contextlib.contextmanager
    def watched(self, watch: Callable[[str, Any], None]) -> Iterator[None]:
        """Shows what comes out of each link in calls within a block, wherever in a model it is.

        Args:
            watch: Called with the link's name and the tensor. Functions that were traced before
                do not call it: call the model itself, `model(images)`.

        Example:
            >>> with backbone.watched(lambda name, tensor: print(name, tensor.shape)):
            ...     model(images)
        """
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    def _entry(self, inputs: Any) -> tuple[int, Any]:
        """Where in the chain the inputs enter it, told by their structure."""
        if not isinstance(inputs, Mapping):
            self._check_images(tuple(getattr(inputs, "shape", inputs)))
            return 0, inputs
        if len(inputs) != 1 or not next(iter(inputs)).startswith(_AFTER):
            raise ValueError(
                "Expected images, or kept activations as a dict with the one key 'after:<block>'. "
                f"Received: a dict with keys {list(inputs)}."
            )
        ((key, x),) = inputs.items()
        return self._index(key.removeprefix(_AFTER)) + 1, x

    def _check_images(self, shape: tuple[int | None, ...]) -> None:
        expected = self._chain[0].input_shape
        keeps_shape = isinstance(self.preprocessing, PixelScaling | keras.layers.Rescaling)
        differs = len(shape) != len(expected) or any(
            a != b for a, b in zip(shape[1:], expected[1:], strict=True) if a and b
        )
        if keeps_shape and (differs or (shape[-1] is None and expected[-1] is not None)):
            raise ValueError(
                f"Backbone '{self.name}' takes batches of images of shape {expected}. Received: "
                f"{shape}. One image becomes a batch by `image[None]`, a dataset of single images "
                "one of batches by `.batch(32)`, a grey image RGB by "
                "`keras.ops.repeat(images, 3, axis=-1)`, one of another size fits by "
                "`keras.ops.image.resize(images, (height, width))`."
            )

    def _index(self, name: str) -> int:
        names = self.link_names
        if name not in names:
            raise ValueError(
                f"Backbone '{self.name}' has no link {name!r}. Expected one of {list(names)}."
            )
        return self._all_names.index(name) + 1

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of the features for a shape of images or of kept activations."""
        start, shape = self._entry(input_shape)
        shapes: list[Any] = []
        for link in self._links[start:]:
            given = shapes[1:] if isinstance(link, LevelPooling) else shape
            shapes.append(shape := link.compute_output_shape(given))
        return shape

    def get_config(self) -> dict[str, Any]:
        """Returns the whole architecture, so that loading needs no download."""
        return {
            **super().get_config(),
            "source": keras.saving.serialize_keras_object(self._source.value.model),
            "norm": keras.saving.serialize_keras_object(self._source.value.norm),
            "pooling": self.pooling,
            "preprocessing": keras.saving.serialize_keras_object(self.preprocessing),
            "unfrozen": self._unfrozen,
        }

    @property
    def _unfrozen(self) -> list[str]:
        return [unit.name for unit in self._units if unit.trainable]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the layer again, with the same blocks unfrozen.

        Raises:
            ValueError: If the config names a source in place of bringing it along, or brings one
                that nobody has said is trusted, or asks for more than can be built.
        """
        check_config(config)
        config = dict(config)
        unfrozen = config.pop("unfrozen")
        with cloning():
            for key in ("source", "preprocessing", "norm"):
                if key in config:  # earlier versions wrote no "norm"
                    config[key] = keras.saving.deserialize_keras_object(config[key])
        if not isinstance(config["source"], keras.Model):
            raise ValueError(
                "The config of a FrozenBackbone brings its network along. Received: source="
                f"{config['source']!r}. Nothing was loaded; a file with it was tampered with."
            )
        if "norm" not in config and len(config["source"].outputs[0].shape) != 4:
            config["pooling"] = None  # nor did they pool tokens
        config["source"] = registry.Source(config["source"], None, norm=config.pop("norm", None))
        layer = cls(**config)
        if unfrozen:
            former = layer.former_names  # files of earlier versions
            layer.unfreeze([former.get(name, name) for name in unfrozen])
        return layer


def _pooling_kind(pooling: str | None, shape: tuple[int | None, ...]) -> type[keras.layers.Layer]:
    if len(shape) == 2:  # a vector
        return keras.layers.Identity
    if len(shape) not in _POOLINGS[pooling]:
        raise ValueError(
            f"pooling={pooling!r} takes a feature map (batch, height, width, channels), tokens "
            f"(batch, tokens, channels) or a vector. Received: a source whose output has the shape "
            f"{shape}. Give pooling=None, and pool in the layers behind the backbone."
        )
    return _POOLINGS[pooling][len(shape)]


def _unit_names(link: keras.Layer) -> set[str]:
    is_block = isinstance(link, keras.Model)
    return {unit.name for unit in blocks.units(link)} if is_block else {link.name}


def _copy_of(link: keras.Layer, **changes: Any) -> Any:
    with cloning():
        copy = type(link).from_config({**link.get_config(), **changes})
    if not copy.built:
        copy.build_from_config(link.get_build_config())
    copy.set_weights(link.get_weights())
    copy.trainable = False
    return copy


def _matches(pattern: Any, names: Sequence[str]) -> Sequence[str]:
    if not isinstance(pattern, str):
        return ()
    return names if pattern == "all" else fnmatch.filter(names, pattern)


def warn_of_number(given: Any, meant: str) -> None:
    """Warns that a name depends on which models were built before."""
    warnings.warn(
        f"{given!r} is a name that Keras made up. It depends on what else was built in this "
        f"process, so another process may give it to another layer. Here it stands for {meant}: "
        "say that, or name your layers.",
        stacklevel=3,
    )


class _Opaque:
    """Keeps Keras from tracking what is inside."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _mode(
    preprocessing: str | keras.Layer | None, source: registry.Source
) -> str | keras.Layer | None:
    if not (isinstance(preprocessing, str) and preprocessing == "auto"):
        return preprocessing
    if source.preprocessing is None:
        raise ValueError(
            f"preprocessing='auto': nothing is known of the pixels that model "
            f"'{source.model.name}' was trained on. Say it: preprocessing='unit' for 0..1, 'tf' "
            "for -1..1, 'torch' or 'caffe' for ImageNet means, a Keras layer, or None if it takes "
            "raw 0..255."
        )
    return source.preprocessing
