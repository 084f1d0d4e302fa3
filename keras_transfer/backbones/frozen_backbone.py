"""FrozenBackbone: a pretrained backbone as one layer, a chain of blocks to unfreeze."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Self

import keras
import numpy as np

from keras_transfer.backbones import pixel_range, registry, surgery
from keras_transfer.backbones.blocks import Which
from keras_transfer.backbones.freezable_chain import FreezableChain
from keras_transfer.backbones.hub.hub_module import HubModule, cloning
from keras_transfer.backbones.layers import LevelPooling, PixelScaling, preprocessing_layer
from keras_transfer.backbones.splitting import split
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
class FrozenBackbone(FreezableChain):
    """A pretrained backbone as one layer: preprocessing, a chain of blocks, pooling.

    All blocks are frozen at first. A frozen block runs in inference mode, so its statistics of
    BatchNormalization never move and its Dropout never drops. `batch_norm` decides how
    unfrozen blocks run.

    Args:
        source: The name of a model of `keras.applications`, `"efficientnet_lite0"`; any
            `keras.Model` with one image in and one tensor out (shared, not copied); the address of
            a TF-Hub module, a SavedModel folder or a `.tar.gz` of one; or a `HubModule`.
        weights: `"imagenet"`, `None` for random weights, or the path of a weights file; ignored
            for a model and a module.
        input_shape: `(height, width, 3)`; `None` for any size, where the architecture allows it.
        pooling: Of the feature map, or the tokens, that the source gives: `"avg"`, `"max"`,
            `"flatten"`, or `None` for none; `"levels"` for averages and maxima of all blocks (see
            `LevelPooling`), which can be cached only while all of them are frozen. A source whose
            output is a vector already is not pooled. As in `keras.applications`, ConvNeXt's last
            normalization comes after the pooling.
        preprocessing: `"auto"` for what the source was trained with; one of `"raw"` (0..255),
            `"unit"` (0..1), `"tf"` (-1..1), `"torch"`, `"caffe"`, `"lite"`; a Keras layer; or
            `None` to pass pixels on as they are.
        batch_norm: `"frozen"`: unfrozen blocks run in inference mode, too. `"adapt"`: they run in
            training mode while they train, as in Keras itself: BatchNormalization normalizes by
            the batch and its statistics follow the data, Dropout drops. Better on images unlike
            those of the pretraining, with batches of 16 and more. A TF-Hub module always runs in
            inference mode.
        **kwargs: As for any Keras layer.

    Input: Raw RGB images `(batch, height, width, 3)`, 0..255, uint8 or floating point. Or cached
        activations, `{"after:<block>": tensor}` as `activations` returns them: the chain then
        starts behind that block.
    Output: Features `(batch, channels)`; without pooling what the source gives, mostly
        `(batch, height, width, channels)`.

    Raises:
        ValueError: If the source, the pooling or the preprocessing is unknown, or if
            `preprocessing="auto"` is asked of a model of which nothing is known.
        OSError: If pretrained weights, or a module, cannot be had. The message says what to do.

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
        batch_norm: Literal["frozen", "adapt"] = "frozen",
        **kwargs: Any,
    ) -> None:
        if batch_norm not in ("frozen", "adapt"):
            raise ValueError(f"Unknown batch_norm {batch_norm!r}. Expected 'frozen' or 'adapt'.")
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
        self.batch_norm = batch_norm
        self.preprocessing = preprocessing_layer(_mode(preprocessing, loaded), loaded.dtype)
        self._source = _Untracked(loaded)
        model, norm = loaded.model, loaded.norm
        if norm is not None and pooling == "levels":  # of which only the last is normalized
            model, norm = keras.Model(model.inputs, norm(model.outputs[0]), name=model.name), None
        self._chain = list(split(model).values())
        self._pool = self._pooling_layer("pooling", norm)
        for link in (*self._chain, self._pool):
            link.trainable = False
        self._watch: Callable[[str, Any], None] | None = None
        self.built = True

    def _pooling_layer(self, name: str | None, norm: keras.Layer | None) -> keras.Layer:
        shape = self._chain[-1].output_shape
        kind = keras.layers.Identity if len(shape) == 2 else _POOLINGS[self.pooling].get(len(shape))
        if kind is None:
            raise ValueError(
                f"pooling={self.pooling!r} takes a feature map (batch, height, width, channels), "
                "tokens (batch, tokens, channels) or a vector. Received: a source whose output has "
                f"the shape {shape}. Give pooling=None, and pool in the layers behind the backbone."
            )
        if norm is None:
            return kind(name=name)
        pools = self.pooling in ("avg", "max")
        layer = keras.Sequential([kind(), norm] if pools else [norm, kind()], name=name)
        layer.build(shape)
        return layer

    def check_pixels(self, images: Any, *, finite_only: bool = False) -> None:
        """Warns if a batch of images is not in the range that the backbone takes.

        That is raw 0..255, or 0..1 where `preprocessing=None` gives them to a module. With
        `preprocessing=None` on another source, pixels must be finite numbers only; with a layer of
        a user's own, they are not checked.

        Args:
            images: The batch; one of cached activations passes.
            finite_only: Whether to check for NaN and infinite pixels only.

        Raises:
            ValueError: If it is no batch of images, or some pixels are no finite numbers.
        """
        if isinstance(images, Mapping):  # cached activations, which have no pixels
            return
        self._check_images(tuple(images.shape))
        layer, expected = self.preprocessing, None
        if isinstance(layer, PixelScaling):
            expected = "raw"
        elif not isinstance(layer, keras.layers.Rescaling) or (layer.scale, layer.offset) != (1, 0):
            return
        elif any(module.pixels == "unit" for module in self._modules):
            expected = "unit"
        pixel_range.check_pixels(images, None if finite_only else expected)

    @property
    def _modules(self) -> list[HubModule]:
        return [layer for layer in self._chain[0].layers if isinstance(layer, HubModule)]

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Returns digests of all that decides the activations after each link.

        Raises:
            NotCacheable: If a layer has no config.
        """
        preprocessing = hashlib.blake2b(digest_size=16)
        architecture, weights = preprocessing.copy(), preprocessing.copy()
        fingerprints = {}
        for name, link in zip((None, *self._all_names), self._links, strict=True):
            digest = architecture if name else preprocessing
            digest.update(of_architecture(link).encode())
            if link is self._pool and link.weights:
                weights.update(b"normalizes what was pooled")
            for weight in link.weights:
                weights.update(np.ascontiguousarray(weight.numpy()).tobytes())
            if name in self.link_names:
                fingerprints[name] = {
                    "preprocessing": preprocessing.hexdigest(),
                    "architecture": architecture.hexdigest(),
                    "weights": weights.hexdigest(),
                }
        return fingerprints

    @property
    def _links(self) -> list[keras.Layer]:
        return [self.preprocessing, *self._chain, self._pool]

    def pool(self, feature_map: Any) -> Any:
        """Pools the output of the last block, or of all of them, as `call` does.

        Args:
            feature_map: The output of the last block; with `pooling="levels"` a list of those of
                all blocks, first to last.
        """
        norm = self._source.value.norm
        if self._pools_levels:
            return LevelPooling()(feature_map)
        return self._pooling_layer(None, norm and surgery.copy_of(norm, name=None))(feature_map)

    def up_to(self, after: str) -> Self:
        """Returns the chain up to a link as a backbone of its own, which shares the layers.

        Args:
            after: The last block of it, unpooled; or `"pooling"` for the whole.
        """
        return surgery.up_to(self, after)

    def share_blocks(self, own: Which = (), *, pooling: str | None = "same") -> Self:
        """Returns a frozen backbone that shares its blocks with this one, but for copies of some.

        Trainings that unfreeze blocks, one after the other, can leave a backbone as it is: each
        gets a backbone with own copies of the blocks that it unfreezes.

        Args:
            own: The blocks to copy, as for `unfreeze`; none unless given. A module, whose groups
                of variables cannot be cut, is copied as a whole.
            pooling: As for `FrozenBackbone`; `"same"` for that of this one.

        Raises:
            ValueError: If a block of this one is not frozen, or `own` matches no block.
        """
        return surgery.share_blocks(self, own, pooling)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Runs the chain on images, or the rest of it on cached activations.

        Args:
            inputs: Either.
            training: Whether unfrozen blocks run in training mode under `batch_norm="adapt"`.
        """
        return self._run(inputs, to=self._pool.name, training=training)

    def activations(self, inputs: Any, *, after: str) -> dict[str, Any]:
        """Runs the chain up to a link, and returns what `call` can go on from.

        Args:
            inputs: Images, or cached activations from further down the chain.
            after: The name of a block, or `"pooling"` for the features.

        Returns:
            `{"after:<block>": tensor}`.

        Raises:
            ValueError: If there is no such link, or the inputs lie beyond it.
        """
        return {_AFTER + after: self._run(inputs, to=after)}

    def _run(self, inputs: Any, to: str, training: Any = False) -> Any:
        start, x = self._entry(inputs)
        stop = self._index(to)
        if start > stop + 1:
            raise ValueError(f"Activations {list(inputs)} lie beyond {to!r}: give earlier ones.")
        levels: list[Any] = []
        for link in self._links[start : stop + 1]:
            given = levels[1:] if isinstance(link, LevelPooling) else x
            x = link(given, training=training if self._adapts(link) else False)
            levels += [x] if self._pools_levels else []
            if self._watch is not None:
                self._watch(link.name, x)
        return x

    def _adapts(self, link: keras.Layer) -> bool:
        return self.batch_norm == "adapt" and bool(link.trainable_weights)

    @contextlib.contextmanager
    def watched(self, watch: Callable[[str, Any], None]) -> Iterator[None]:
        """Passes the output of each link to a function, in calls within a `with` block.

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
        """Returns the link at which inputs enter the chain, by their structure, and the tensor."""
        if not isinstance(inputs, Mapping):
            self._check_images(tuple(getattr(inputs, "shape", inputs)))
            return 0, inputs
        if len(inputs) != 1 or not next(iter(inputs)).startswith(_AFTER):
            raise ValueError(
                "Expected images, or cached activations as a dict with the one key "
                f"'after:<block>'. Received: a dict with keys {list(inputs)}."
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
        """Returns the shape of the features for a shape of images or of cached activations."""
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
            "batch_norm": self.batch_norm,
            "preprocessing": keras.saving.serialize_keras_object(self.preprocessing),
            "unfrozen": self._unfrozen,
        }

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
                config[key] = keras.saving.deserialize_keras_object(config.get(key))
        if not isinstance(config["source"], keras.Model):
            raise ValueError(
                "The config of a FrozenBackbone brings its network along. Received: source="
                f"{config['source']!r}. Nothing was loaded; a file with it was tampered with."
            )
        config["source"] = registry.Source(config["source"], None, norm=config.pop("norm"))
        layer = cls(**config)
        if unfrozen:
            layer.unfreeze(unfrozen)
        return layer


class _Untracked:
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
