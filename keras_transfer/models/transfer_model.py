"""TransferModel: a frozen backbone and a head, whose epochs cost only what they train."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as short
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
from keras_transfer.models.losses import is_binary, is_sparse, of_shares, smoothed
from keras_transfer.models.outputs import kind_of_outputs, last_activation
from keras_transfer.serving.metadata import FORMATS, plain
from keras_transfer.training.phased_callbacks import OneTraining
from keras_transfer.training.train_step import make_variables, own_methods
from keras_transfer.utils.config_limits import check_config, check_memory
from keras_transfer.utils.console import say
from keras_transfer.utils.name_lists import some
from keras_transfer.utils.supported_keras import check_keras_3

_MOST_CLASSES = 1_000_000
_MOST_HIDDEN = 100_000


@keras.saving.register_keras_serializable(package="keras_transfer")
class TransferModel(keras.Model):
    """An image classifier: a `FrozenBackbone` under a small head.

    It is an ordinary Keras model. Its `fit` differs in one thing: what the frozen part of the
    backbone makes of each image is computed once, and the epochs train on that.

    Args:
        backbone: A `FrozenBackbone`, or a source for one.
        classes: The class names, or their number, two or more. Two classes give one sigmoid unit
            for the probability of the second, more give softmax.
        hidden: Units of the hidden layer (ReLU); 0 for none.
        dropout: Rate before the last layer, from 0 up to, not including, 1.
        head: A layer or model to take the place of hidden layer, dropout and last layer. Its
            output must have one unit for two classes, else one for each class.
        augmentation: A layer or a list of layers for raw pixels, run in training only. The views
            that `Flips` makes are kept, all of them; of any other augmentation so many as the
            `FeatureCache` has `views`. Without views each epoch sees other images, so nothing is
            kept.
        feature_cache: `"auto"` to keep activations for the time of each `fit`; a `FeatureCache` to
            share them between fits and models, or runs if it has a folder; `None` to run the whole
            model on images in every epoch.
        label_smoothing: Share of each label, from 0 up to, not including, 1, that is spread evenly
            over all classes (under a binary cross-entropy: over yes and no), in training only: the
            loss of validation is what it would be without.
        **kwargs: As for any Keras model.

    Attributes:
        will_train: Blocks that other fits on the same `FeatureCache` will unfreeze, if this one
            does not: what lies below them is kept, too, so that it runs once for all. Default ().

    Input: Raw RGB images `(batch, height, width, 3)`, 0..255, uint8 or floating point; or kept
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
        names = _class_names(classes)
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
        self.head = head if head is not None else _head(self.units, hidden, dropout)
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
        """Builds the head for images, or kept activations, of a shape."""
        if not isinstance(input_shape, Mapping):
            self._image_shape = tuple(input_shape)
        features = self.backbone.compute_output_shape(input_shape)
        if self._made_head and features[-1]:
            hidden = self.hidden or features[-1]
            check_memory([(features[-1], hidden), (hidden, self.units)], "The head")
        given = self.head(keras.Input(features[1:], dtype=self.compute_dtype)).shape
        if len(given) != 2:
            raise ValueError(
                f"The head gives outputs of shape {given} for features of shape {features}. "
                f"Expected (batch, {self.units}): one row for each image. Let the backbone pool, "
                "as FrozenBackbone(..., pooling='avg') does, or a layer of the head."
            )
        if given[-1] != self.units:
            raise ValueError(
                f"The head gives {given[-1]} units. Expected {self.units} for the "
                f"{len(self.class_names)} classes {some(self.class_names)}."
            )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Classifies images, or kept activations."""
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
            _check_probabilities(self.head)
            loss = "binary_crossentropy" if self.units == 1 else "sparse_categorical_crossentropy"
        if metrics is None:
            metrics = ["accuracy"]
            if self._is_multi_label(loss):
                _warn_of_softmax(self.head, self.units)
                metrics = [keras.metrics.BinaryAccuracy("accuracy")]
        given = of_shares(loss) if self.label_smoothing else loss
        super().compile(optimizer, given, metrics=metrics, **kwargs)
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
            y = keras.tree.map_structure(lambda one: smoothed(one, y_pred, share, self.loss), y)
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
        """Trains as `keras.Model.fit` does, on activations kept at the border of what is frozen.

        Arguments, callbacks and the returned History are those of `keras.Model.fit`. Where a
        `BlockUnfreezer` moves the border, the next activations are computed from the nearest ones
        that are kept, or from the images. What can't be kept trains end to end, and one line says
        why. With a `steps_per_epoch` each phase begins a new pass through the data.

        Raises:
            ValueError: As `keras.Model.fit`; if the head does not fit the classes; or if kept
                activations are given that lie beyond a block that trains.
        """
        self._assert_compile_called("fit")
        check_keras_3(callbacks=callbacks)
        _check_given(x)
        class_weight = check_class_weight(class_weight, self.class_names)
        self.evaluation = None
        train, valid = FitData.split(x, y, sample_weight, validation_split, validation_data)
        train = replace(train, augmentation=self.augmentation)
        if not self.built and (shape := train.batch_shape()) is not None:
            with self.distribute_strategy.scope():
                self.build(shape)
        one = OneTraining(
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
            will_train=one.will_train.union(self.will_train),
            verbose=verbose != 0,
            check_labels=self._label_check(),
            own_methods=own_methods(self),
        )
        options = {
            "batch_size": batch_size,
            "verbose": verbose,
            "callbacks": one,
            "shuffle": shuffle,
            "class_weight": class_weight,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
            "validation_freq": validation_freq,
        }
        with features.hinting(), one:
            for start, stop in one.phases(initial_epoch, epochs):
                phase = {**options, "initial_epoch": start, "epochs": stop}
                self._fit_phase(features, train, valid, phase)
        return self.history

    def _fit_phase(
        self,
        features: FeatureDataAdapter,
        train: FitData,
        valid: FitData,
        options: Mapping[str, Any],
    ) -> None:
        """Runs the epochs of one phase, on activations at its cut point."""
        batch_size, steps = options["batch_size"], options["steps_per_epoch"]
        shuffle, class_weight = options["shuffle"], options["class_weight"]
        kept = features(
            train, batch_size=batch_size, steps=steps, shuffle=shuffle, class_weight=class_weight
        )
        kept_valid = features(
            valid,
            batch_size=options["validation_batch_size"] or batch_size,
            steps=options["validation_steps"],
        )
        make_variables(self, kept.label_shape(), self.units)
        changed: dict[str, Any] = {"shuffle": shuffle and not kept.is_dataset}
        if train.is_array and kept is not train:
            changed["class_weight"] = None  # the sample weights of kept arrays contain it
        super().fit(
            kept.x,
            kept.y,
            sample_weight=kept.sample_weight,
            validation_data=kept_valid.as_tuple(),
            **{**options, **changed},
        )

    def _label_check(self) -> Callable[[Any], None] | None:
        """Returns what checks labels, under a loss that is known to take them."""
        if self._is_multi_label(self.loss):
            return partial(check_multi_hot, class_names=self.class_names)
        if is_sparse(self.loss) or is_binary(self.loss):
            return partial(check_labels, class_names=self.class_names)
        return None

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does; warns of pixels that are not 0..255."""
        if kwargs.get("_use_cached_eval_dataset"):  # Keras' own call from within `fit`
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
        export wrote, or was changed since, is never replaced. A link to a folder stays one.

        A SavedModel, for images of any height and width, resized as `image_folder` does, has the
        signatures `serving_default` (float32), `serving_uint8`, and `classify_bytes` (encoded
        JPEG, PNG or WebP images to `label`, `score` and `scores` of all classes; RGB only). One
        that cannot be decoded fails its batch; one that would cost too much, as of more than
        89,478,485 pixels, has an empty label, scores of NaN, and the reason as `error`, which is
        empty for others. `loaded.serve(images)` takes either type. The class names are in
        `assets/labels.txt`, metadata in `assets.extra/metadata.json`. An `.onnx` file and
        OpenVINO's `.xml` and `.bin` take float32 images of any size, a `.tflite` file those of the
        size trained on; beside them lie `model.onnx.labels.txt` and `model.onnx.metadata.json`.
        These formats hold neither encoded images nor names.

        Args:
            filepath: The SavedModel's folder; else a file that ends in `.tflite`, `.onnx`, `.xml`.
            format: `"tf_saved_model"`, `"litert"`, `"onnx"` or `"openvino"`; the last two need the
                extra `export`, as does `data`.
            verbose: Whether to say what was written. Default None: only what quantization changed.
            input_signature: If given, nothing is added: it is all as `keras.Model.export` does.
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
            super().export(filepath, format, bool(verbose), input_signature, **kwargs)
            return
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


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, Integral):
        if (count := int(classes)) > _MOST_CLASSES:
            raise ValueError(f"`classes` must be at most {_MOST_CLASSES:,}. Received: {count:,}.")
        names = tuple(map(str, range(count)))
    elif isinstance(classes, str) or not isinstance(classes, Iterable):
        raise ValueError(
            f"`classes` must be a number or a list of names. Received: {classes!r}. For "
            "example ['cat', 'dog'], or 2."
        )
    else:
        names = tuple(map(str, classes))
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            "`classes` must be two or more class names, each different, or their number. Received: "
            f"{short(classes)}."
        )
    return names


def _head(units: int, hidden: int, dropout: float) -> keras.Sequential:
    numbers = isinstance(hidden, Integral) and isinstance(dropout, Real)
    if not (numbers and 0 <= hidden <= _MOST_HIDDEN and 0 <= dropout < 1):
        raise ValueError(
            f"`hidden` must be 0 to {_MOST_HIDDEN:,} units and `dropout` a rate from 0 up to, not "
            f"including, 1. Received: hidden={hidden!r}, dropout={dropout!r}."
        )
    activation = "sigmoid" if units == 1 else "softmax"
    layers = [
        keras.layers.Dense(hidden, activation="relu", name="hidden") if hidden else None,
        keras.layers.Dropout(dropout, name="dropout") if dropout else None,
        # Probabilities in float32 also under mixed precision, as Keras' guide asks.
        keras.layers.Dense(units, activation=activation, dtype="float32", name="classes"),
    ]
    return keras.Sequential([layer for layer in layers if layer is not None], name="head")


def _one_layer(layers: keras.Layer | Sequence[keras.Layer] | None) -> keras.Layer | None:
    if layers is None or isinstance(layers, keras.Layer):
        return layers
    if isinstance(layers, str) or not all(isinstance(one, keras.Layer) for one in layers):
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


def _check_probabilities(head: keras.Layer) -> None:
    activation = last_activation(head)
    if activation == "linear" or activation is None:
        ends = "ends with no activation, so it gives no probabilities"
        if activation is None:
            ends = "ends in a layer that does not tell whether it gives probabilities"
        raise ValueError(
            f"The head '{head.name}' {ends}. Let it end in activation='sigmoid' (two classes) or "
            "'softmax', or compile with a loss, such as "
            "keras.losses.BinaryCrossentropy(from_logits=True)."
        )


def _warn_of_softmax(head: keras.Layer, units: int) -> None:
    if last_activation(head) == "softmax":
        warnings.warn(
            f"The head '{head.name}' ends in softmax, whose outputs have the sum 1, but a binary "
            "cross-entropy takes each class by itself. If an image may be of several classes, pass "
            f"head=keras.layers.Dense({units}, activation='sigmoid'); if not, leave the loss out.",
            stacklevel=3,
        )


def _gives_probabilities(model: TransferModel) -> bool:
    found = kind_of_outputs(model)
    if found is None:
        raise ValueError(
            f"The head '{model.head.name}' ends in a layer that does not tell whether it gives "
            "probabilities or logits, and the model has no loss that does. Compile with a loss, "
            "such as keras.losses.BinaryCrossentropy(from_logits=True), and export again."
        )
    return not found[0]
