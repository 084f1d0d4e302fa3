"""TransferModel: a classifier on a frozen backbone, trained on cached activations."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import keras
from keras import ops

from keras_transfer.backbones import registry
from keras_transfer.backbones.frozen_backbone import FrozenBackbone
from keras_transfer.backbones.hub.hub_module import HubModule, cloning
from keras_transfer.data.fit_data import FitData, single
from keras_transfer.data.labels import check_class_weight, check_labels, check_multi_hot
from keras_transfer.export import exporter
from keras_transfer.export.quantization import Quantization, tell
from keras_transfer.features.data_adapter import FeatureDataAdapter
from keras_transfer.features.feature_cache import FeatureCache
from keras_transfer.models.head import (
    check_probabilities,
    class_names_of,
    default_head,
    warn_of_softmax,
)
from keras_transfer.models.losses import is_binary, is_sparse, of_shares, smoothed
from keras_transfer.models.outputs import kind_of_outputs
from keras_transfer.serving.metadata import FORMATS, plain
from keras_transfer.training.phased_callbacks import PhasedCallbackList
from keras_transfer.utils.config_limits import check_config, check_memory
from keras_transfer.utils.console import say
from keras_transfer.utils.keras_internals import build_metrics, is_evaluation_of_fit
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.supported_keras import check_keras_3


@keras.saving.register_keras_serializable(package="keras_transfer")
class TransferModel(keras.Model):
    """An image classifier: a `FrozenBackbone` under a small head.

    It is an ordinary Keras model. Its `fit` differs in one thing: the activations of the frozen
    blocks are computed once for each image and cached, and the epochs train on these.

    Args:
        backbone: A `FrozenBackbone`, or a source for one.
        classes: The class names, or their number, two or more. Two classes give one sigmoid unit
            for the probability of the second, more give softmax.
        hidden: Units of the hidden layer (ReLU); 0 for none.
        dropout: Rate before the last layer, from 0 up to, not including, 1.
        head: A layer or model to take the place of hidden layer, dropout and last layer. Its
            output must have one unit for two classes, else one for each class.
        augmentation: A layer or a list of layers for raw pixels, run in training only. All views
            that `Flips` makes are cached; of any other augmentation as many as the `FeatureCache`
            has `views`. Without views each epoch sees other images, so nothing is cached.
        feature_cache: `"auto"` to cache activations for the time of each `fit`; a `FeatureCache`
            to share them between fits and models, or runs if it has a folder; `None` to run the
            whole model on images in every epoch.
        label_smoothing: Share of each label, from 0 up to, not including, 1, that is spread evenly
            over all classes (under a binary cross-entropy: over yes and no), in training only: the
            loss of validation is what it would be without.
        **kwargs: As for any Keras model.

    Attributes:
        will_train: Blocks that other fits on the same `FeatureCache` will unfreeze: activations
            below them are cached, too, so that they are computed once for all. Default ().

    Input: Raw RGB images `(batch, height, width, 3)`, 0..255, uint8 or floating point; or cached
        activations as `FeatureCache.dataset` gives them.
    Output: Probabilities, float32: `(batch, 1)` for two classes, else `(batch, classes)`.

    Raises:
        ValueError: If there are fewer than two classes, names occur twice, or the output of `head`
            does not fit them.

    Example:
        >>> model = TransferModel("efficientnet_lite0", classes=["cat", "dog"])
        >>> model.compile()
        >>> model.fit(data.train, validation_data=data.valid, epochs=10)
        >>> model.export("serving/1")
    """

    def __init__(
        self,
        backbone: str
        | os.PathLike[str]
        | keras.Model
        | HubModule
        | FrozenBackbone = registry.DEFAULT,
        classes: int | Sequence[str] = 2,
        *,
        hidden: int = 128,
        dropout: float = 0.3,
        head: keras.Layer | None = None,
        augmentation: keras.Layer | Sequence[keras.Layer] | None = None,
        feature_cache: str | FeatureCache | None = "auto",
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        names = class_names_of(classes)
        if not (feature_cache in ("auto", None) or isinstance(feature_cache, FeatureCache)):
            raise ValueError(
                "`feature_cache` must be 'auto', None or a FeatureCache. Received: "
                f"{feature_cache!r}."
            )
        if not (isinstance(label_smoothing, int | float) and 0 <= label_smoothing < 1):
            raise ValueError(
                "`label_smoothing` must be a share from 0 up to, not including, 1. Received: "
                f"{label_smoothing!r}."
            )
        check_keras_3(backbone=backbone, head=head, augmentation=augmentation)
        super().__init__(**kwargs)
        self.class_names = names
        self.hidden = hidden
        self.dropout = dropout
        self._made_head = head is None
        self.feature_cache = feature_cache
        self.label_smoothing = float(label_smoothing)
        self.will_train: tuple[str, ...] = ()
        self.backbone = (
            backbone if isinstance(backbone, FrozenBackbone) else FrozenBackbone(backbone)
        )
        self.head = head if head is not None else default_head(self.units, hidden, dropout)
        self.augmentation = _one_layer(augmentation)
        self.evaluation: dict[str, Any] | None = None
        self._image_shape: tuple[int | None, ...] | None = None

    @property
    def units(self) -> int:
        """Units of the last layer: 1 for two classes."""
        return 1 if len(self.class_names) == 2 else len(self.class_names)

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """Height, width and channels of the images that it was built for."""
        return (self._image_shape or (None, None, None, 3))[1:]

    def build(self, input_shape: Any) -> None:
        """Builds the head for images, or cached activations, of a shape."""
        if not isinstance(input_shape, Mapping):
            self._image_shape = tuple(input_shape)
        features = self.backbone.compute_output_shape(input_shape)
        if self._made_head and features[-1]:
            hidden = self.hidden or features[-1]
            check_memory([(features[-1], hidden), (hidden, self.units)], "The head")
        shape = self.head(keras.Input(features[1:], dtype=self.compute_dtype)).shape
        if len(shape) != 2:
            raise ValueError(
                f"The head gives outputs of shape {shape} for features of shape {features}. "
                f"Expected (batch, {self.units}): one row for each image. Let the backbone pool, "
                "as FrozenBackbone(..., pooling='avg') does, or a layer of the head."
            )
        if shape[-1] != self.units:
            raise ValueError(
                f"The head gives {shape[-1]} units. Expected {self.units} for the "
                f"{len(self.class_names)} classes {some(self.class_names)}."
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Classifies images, or cached activations."""
        x = inputs
        if self.augmentation is not None and not isinstance(inputs, Mapping):
            x = self.augmentation(ops.cast(x, "float32"), training=training)
        return self.head(self.backbone(x), training=training)

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Compiles; what is left out follows from the classes.

        Args:
            optimizer: As for any Keras model; Adam at 1e-3 unless given.
            loss: Unless given, binary cross-entropy for two classes, sparse categorical
                cross-entropy for more. Under a binary cross-entropy over three or more classes an
                image may be of several: labels are 0 or 1 for each class, `(n, classes)`, and the
                head ends in a sigmoid.
            metrics: Accuracy unless given.
            **kwargs: As for any Keras model.

        Raises:
            ValueError: If no loss is given and the head is not known to give probabilities.
        """
        check_keras_3(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        if loss is None:
            check_probabilities(self.head)
            loss = "binary_crossentropy" if self.units == 1 else "sparse_categorical_crossentropy"
        if metrics is None:
            metrics = ["accuracy"]
            if self._is_multi_label(loss):
                warn_of_softmax(self.head, self.units)
                metrics = [keras.metrics.BinaryAccuracy("accuracy")]
        smoothable = of_shares(loss) if self.label_smoothing else loss
        super().compile(optimizer, smoothable, metrics=metrics, **kwargs)
        self.loss = loss

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`."""
        config = super().get_compile_config()
        return config and {**config, "loss": keras.saving.serialize_keras_object(self.loss)}

    def _is_multi_label(self, loss: Any) -> bool:
        return self.units > 1 and is_binary(loss)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Computes the loss as Keras does, with smoothed labels in training."""
        if self.label_smoothing and y is not None:
            share = self.label_smoothing if training else 0.0
            y = keras.tree.map_structure(lambda part: smoothed(part, y_pred, share, self.loss), y)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, on cached activations of the frozen blocks.

        Arguments, callbacks and the returned History are those of `keras.Model.fit`. Where a
        `BlockUnfreezer` moves the cut point between frozen and trained blocks, the next activations
        are computed from the nearest cached ones, or from the images. Data that cannot be cached
        train end to end, and one line says why. With a `steps_per_epoch` each phase begins a new
        pass through the data.

        Raises:
            ValueError: As `keras.Model.fit`; if the head does not fit the classes; or if cached
                activations are given that lie beyond a block that trains.
        """
        if not self.compiled:
            raise ValueError("The model is not compiled. Call `compile` before `fit`.")
        check_keras_3(callbacks=callbacks)
        _check_given(x)
        class_weight = check_class_weight(class_weight, self.class_names)
        self.evaluation = None
        train, valid = FitData.split(x, y, sample_weight, validation_split, validation_data)
        train = replace(train, augmentation=self.augmentation)
        if not self.built and (shape := train.batch_shape()) is not None:
            with self.distribute_strategy.scope():
                self.build(shape)
        phased = PhasedCallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=verbose,
            epochs=epochs,
            steps=steps_per_epoch or train.batches(batch_size or 32),
            model=self,
        )
        features = FeatureDataAdapter(
            self.backbone,
            self.feature_cache,
            will_train=phased.will_train.union(self.will_train),
            verbose=verbose != 0,
            check_labels=self._label_check(),
            own_methods=_own_methods(type(self)),
        )
        valid_batch_size = validation_batch_size or batch_size
        with features.hinting(), phased:
            for start in phased.phases(initial_epoch, epochs):
                cached = features(
                    train,
                    batch_size=batch_size,
                    steps=steps_per_epoch,
                    shuffle=shuffle,
                    class_weight=class_weight,
                )
                cached_valid = features(valid, batch_size=valid_batch_size, steps=validation_steps)
                self._make_variables(cached.label_shape())
                # The sample weights of cached arrays contain the weights of classes.
                is_weighted = train.is_array and cached is not train
                super().fit(
                    cached.x,
                    cached.y,
                    batch_size=batch_size,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=phased,
                    validation_data=cached_valid.as_tuple(),
                    shuffle=shuffle and not cached.is_dataset,
                    class_weight=None if is_weighted else class_weight,
                    sample_weight=cached.sample_weight,
                    initial_epoch=start,
                    steps_per_epoch=steps_per_epoch,
                    validation_steps=validation_steps,
                    validation_batch_size=validation_batch_size,
                    validation_freq=validation_freq,
                )
        return self.history

    def _make_variables(self, labels: Sequence[int | None] | None) -> None:
        """Makes the variables of the optimizer and the metrics before the train step is traced.

        TensorFlow traces a step twice that makes variables, which takes longer than some hundred
        steps. Keras makes them ahead under a strategy only.
        """
        if self.built:
            with self.distribute_strategy.scope():
                if not self.optimizer.built:
                    self.optimizer.build(self.trainable_variables)
                if labels is not None:
                    build_metrics(self, labels, (None, self.units))

    def _label_check(self) -> Callable[[Any], None] | None:
        """Returns what checks labels, under a loss that is known to take them."""
        if self._is_multi_label(self.loss):
            return partial(check_multi_hot, class_names=self.class_names)
        if is_sparse(self.loss) or is_binary(self.loss):
            return partial(check_labels, class_names=self.class_names)
        return None

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; warns of pixels that are not 0..255."""
        if is_evaluation_of_fit(kwargs):
            return super().evaluate(x, y, *args, **kwargs)
        self._check_images(x)
        results = super().evaluate(x, y, *args, **kwargs)
        self.evaluation = {k: plain(v) for k, v in self.get_metrics_result().items()}
        return results

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts as `keras.Model.predict` does; warns of pixels that are not 0..255."""
        self._check_images(x)
        return super().predict(x, *args, **kwargs)

    def _check_images(self, x: Any) -> None:
        _check_given(x)
        FeatureDataAdapter(self.backbone, None, verbose=False).check_pixels(FitData(single(x)))

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        *,
        image_size: tuple[int, int] | None = None,
        quantize: str | None = None,
        data: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the model with its preprocessing inside: it takes raw pixels, 0..255.

        An earlier export is replaced when the new one is complete, and stays if it fails. What no
        export wrote is never replaced. A link to a folder stays one.

        A SavedModel, for images of any height and width, resized as `image_folder` does, has the
        signatures `serving_default` (float32), `serving_uint8`, and `classify_bytes` (encoded
        JPEG, PNG or WebP images to `label`, `score` and `scores` of all classes; RGB only). One
        that cannot be decoded fails its batch; one with more than 89,478,485 pixels, or that would
        take too long, gets an empty label, scores of NaN, and the reason as `error`, which is
        empty for others. `loaded.serve(images)` takes either type. The class names are in
        `assets/labels.txt`, metadata in `assets.extra/metadata.json`. An `.onnx` file and
        OpenVINO's `.xml` and `.bin` take float32 images of any size, a `.tflite` file those of the
        size trained on; beside them lie `model.onnx.labels.txt` and `model.onnx.metadata.json`.
        These formats hold neither encoded images nor names.

        Args:
            filepath: The SavedModel's folder; else a file that ends in `.tflite`, `.onnx`, `.xml`.
            format: `"tf_saved_model"`, `"litert"`, `"onnx"` or `"openvino"`; the last two need the
                extra `export`, as does `data`.
            verbose: Whether to print what was written. Default None: only what quantizing changed.
            input_signature: If given, this is `keras.Model.export`, and nothing is added.
            image_size: Height and width, if the model was built for images of any size.
            quantize: For LiteRT: `"float16"` for weights of half the size, `"int8"` for whole
                numbers throughout, or None, the default.
            data: Some hundred images, 0..255, of the size trained on, to quantize by and to compare
                predictions on: an array, `(images, labels)`, or batches of either. `"int8"` needs
                them.
            **kwargs: Of Keras' exporter of the format.

        Raises:
            ValueError: If the model is not built, the size of its images or whether it gives logits
                is unknown, or `filepath` does not fit the format.
            FileExistsError: If something is there that no earlier export wrote.
            ImportError: If a package that the format needs is missing. The message names the extra.

        Example:
            >>> model.export("serving/1")
            >>> served = tf.saved_model.load("serving/1")  # keep it: it owns the weights
            >>> served.serve(photos).shape
            TensorShape([8, 1])
        """
        if input_signature is not None or format not in FORMATS:
            if quantize is not None or image_size is not None:
                raise ValueError(
                    "`quantize` and `image_size` do not go with `input_signature` or format="
                    f"{format!r}, which are Keras' own. Leave these out."
                )
            super().export(filepath, format, bool(verbose), input_signature, **kwargs)
            return
        if isinstance(image_size, int):
            raise ValueError(
                f"image_size={image_size}. Expected a height and a width: image_size="
                f"({image_size}, {image_size})."
            )
        exporter.check_arguments(format, quantize, data, kwargs)
        probabilities = _gives_probabilities(self)
        facts = exporter.facts_of(self, format, image_size, probabilities=probabilities)
        quantization = None
        if quantize is not None:
            quantization = Quantization.of(quantize, data, (*facts.image_size, facts.channels))
            if quantization.images is not None:
                self.backbone.check_pixels(quantization.images)
        path = Path(filepath).expanduser().absolute()
        facts = exporter.export(self, path, facts, quantization=quantization, options=kwargs)
        if verbose:
            say(exporter.summary(path, facts))
        if quantization is not None and verbose in (None, True):
            say(tell(facts.quantization))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same model, the whole architecture included."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "backbone": serialize(self.backbone),
            "classes": list(self.class_names),
            "hidden": self.hidden,
            "dropout": self.dropout,
            "head": serialize(self.head),  # files of earlier versions: None for the default one
            "augmentation": serialize(self.augmentation),
            "feature_cache": None if self.feature_cache is None else "auto",
            "label_smoothing": self.label_smoothing,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes the model again.

        Raises:
            ValueError: If the config names a backbone in place of bringing it along, or asks for
                more than can be built.
        """
        check_config(config)
        config = dict(config)
        with cloning():
            for key in ("backbone", "head", "augmentation"):
                config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects)
        if not isinstance(config["backbone"], FrozenBackbone):
            raise ValueError(
                "The config of a TransferModel brings its backbone along. Received: backbone="
                f"{config['backbone']!r}. Nothing was loaded; a file with it was tampered with."
            )
        return cls(**config)


def _own_methods(kind: type) -> list[str]:
    """Returns the methods of a user's subclass that `fit` hands the input to."""
    names = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")
    owners = {name: next(base for base in kind.__mro__ if name in vars(base)) for name in names}
    return [
        f"{owner.__name__}.{name}"
        for name, owner in owners.items()
        if owner.__module__.split(".")[0] not in ("keras", "keras_transfer")
    ]


def _one_layer(layers: keras.Layer | Sequence[keras.Layer] | None) -> keras.Layer | None:
    if layers is None or isinstance(layers, keras.Layer):
        return layers
    if isinstance(layers, str) or not all(isinstance(layer, keras.Layer) for layer in layers):
        raise TypeError(
            "`augmentation` must be a layer or a list of layers, such as Flips('mirror'). "
            f"Received: {layers!r}."
        )
    return keras.Sequential(list(layers), name="augmentation")


def _check_given(x: Any) -> None:
    if x is None:
        raise ValueError(
            "Expected images, or a dataset. Received: None. If it is a split of `image_folder`, "
            "there is no such split: give it a share, as test_split=0.15, or a folder of its own."
        )


def _gives_probabilities(model: TransferModel) -> bool:
    kind_and_reason = kind_of_outputs(model)
    if kind_and_reason is None:
        raise ValueError(
            f"The head '{model.head.name}' ends in a layer that does not tell whether it gives "
            "probabilities or logits, and the model has no loss that does. Compile with a loss, "
            "such as keras.losses.BinaryCrossentropy(from_logits=True), and export again."
        )
    return not kind_and_reason[0]
