import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE, dataset, images, labels, tiny_backbone, tiny_network

from keras_transfer import FeatureCache
from keras_transfer.data.fingerprints import NotCacheable
from keras_transfer.features.pipelines import inspect


def rows(data) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(column) for column in zip(*data.as_numpy_iterator(), strict=True))


def activations(data) -> tuple[np.ndarray, np.ndarray]:
    batches = [(next(iter(x.values())), y) for x, y in data.as_numpy_iterator()]
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))


@pytest.mark.parametrize("after", ["block2", "block4", "pooling"])
def test_a_plain_keras_head_trains_on_what_it_gives(after):
    backbone = tiny_backbone()
    kept = FeatureCache().dataset(backbone, dataset(16, shuffle=False), after=after)
    x, y = activations(kept)
    expected = backbone.activations(images(16), after=after)[f"after:{after}"]
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_array_equal(y, labels(16))


@pytest.mark.parametrize("reshuffle", [True, False])
def test_the_order_in_each_epoch_is_that_of_the_pipeline(reshuffle):
    def numbered():
        data = tf.data.Dataset.from_tensor_slices((images(20), np.arange(20)))
        data = data.shuffle(7, seed=5, reshuffle_each_iteration=reshuffle)
        return data.batch(6).prefetch(1)

    plain, data = numbered(), numbered()
    kept = FeatureCache().dataset(tiny_backbone(), data)  # which sets another global seed
    for _ in range(3):
        np.testing.assert_array_equal(activations(kept)[1], rows(plain)[1])


def test_activations_stay_with_their_labels_when_there_is_no_seed():
    backbone = tiny_backbone()
    data = tf.data.Dataset.from_tensor_slices((images(20), np.arange(20))).shuffle(20).batch(6)
    next(iter(data))
    x, y = activations(FeatureCache().dataset(backbone, data))
    np.testing.assert_allclose(x, backbone(images(20)).numpy()[y], atol=1e-6)
    assert sorted(y) == list(range(20))


def test_a_batch_at_the_end_is_short_as_in_the_pipeline():
    kept = FeatureCache().dataset(tiny_backbone(), dataset(20, batch=8))
    assert [len(y) for _, y in kept] == [8, 8, 4]
    assert len(kept) == 3


def test_what_lies_above_is_computed_from_what_is_kept_below():
    cache, backbone, data = FeatureCache(), tiny_backbone(), dataset(16, shuffle=False)
    low = cache.dataset(backbone, data, after="block2")
    traced = []
    backbone.activations = lambda inputs, after, run=backbone.activations: (
        # Not the two images that are compared with what is kept.
        tf.executing_eagerly() or traced.append(list(inputs)),
        run(inputs, after=after),
    )[1]
    high = cache.dataset(backbone, data, after="pooling")
    assert traced == [["after:block2"]]
    np.testing.assert_allclose(activations(high)[0], backbone(images(16)), atol=1e-5)
    assert len(low) == len(high)


def test_arrays_are_known_by_their_content():
    cache, backbone = FeatureCache(), tiny_backbone()
    cache.array(backbone, images(8))
    cache.array(backbone, images(8).copy())
    assert len(cache) == 1
    cache.array(backbone, images(8, seed=1))
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


@pytest.mark.slow
def test_another_preprocessing_or_pooling_is_not_mistaken_for_the_same():
    cache, data = FeatureCache(), dataset(8)
    cache.dataset(tiny_backbone(), data)
    cache.dataset(tiny_backbone(pooling="max"), data)
    assert len(cache) == 2


def test_a_border_above_what_is_frozen_is_refused():
    backbone = tiny_backbone()
    backbone.unfreeze("block3")
    with pytest.raises(ValueError, match="is frozen up to 'block2' only"):
        FeatureCache().dataset(backbone, dataset(8), after="pooling")
    with pytest.raises(ValueError, match="has no link 'block9'"):
        FeatureCache().dataset(backbone, dataset(8), after="block9")


FLIP = keras.layers.RandomFlip()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            lambda d: d.map(lambda x, y: (FLIP(x, training=True), y)),
            "may give something else in each epoch",
        ),
        (
            lambda d: d.map(lambda x, y: (tf.image.random_flip_left_right(x), y)),
            "may give something else in each epoch",
        ),
        (
            lambda d: d.map(lambda x, y: (x + tf.cast(tf.random.uniform([]), x.dtype), y)),
            "may give something else in each epoch",
        ),
        (
            lambda d: d.map(lambda x, y: (tf.numpy_function(lambda a: a, [x], tf.uint8), y)),
            "may give something else in each epoch",
        ),
        (
            lambda d: d.map(lambda x, y: (x + tf.cast(tf.random.truncated_normal([]), x.dtype), y)),
            "may give something else in each epoch",
        ),
        (
            lambda d: d.map(
                lambda x, y: (
                    tf.image.sample_distorted_bounding_box(
                        [24, 24, 3], [[[0.0, 0.0, 1.0, 1.0]]], min_object_covered=0.5
                    )[0][0]
                    + 0 * tf.cast(y[:1], tf.int32),
                    y,
                )
            ),
            "may give something else in each epoch",
        ),
        (lambda d: d.map(lambda x, y: (x, (y, y))), "does not give batches of"),
        (lambda d: d.map(lambda x, y: (x, {"a": y})), "does not give batches of"),
        (
            lambda d: (
                d.unbatch()
                .apply(tf.data.experimental.assert_cardinality(8))
                .shuffle(8)
                .map(lambda x, y: (x, y))
                .shuffle(4)
                .batch(4)
            ),
            "it shuffles twice",
        ),
        (lambda d: d.shuffle(4), "shuffles whole batches"),
        (lambda d: d.repeat(), "infinite"),
        (lambda d: d.filter(lambda x, y: True), "unknown"),
        (lambda d: d.repeat(2), "regroups rows"),
        (lambda d: d.unbatch().shuffle(8).batch(3, drop_remainder=True), "unknown|drops the last"),
    ],
)
def test_pipelines_that_give_other_rows_each_time_are_found_out(data, reason):
    with pytest.raises(NotCacheable, match=reason):
        inspect(data(dataset(8, shuffle=False)))


@pytest.mark.parametrize(
    "data",
    [
        lambda d: d.map(lambda x, y: (tf.cast(x, "float32"), y), num_parallel_calls=2),
        lambda d: d.map(lambda x, y: (FLIP(x, training=True), y)).cache(),
        lambda d: d.cache().prefetch(2),
        lambda d: (
            d.unbatch()
            .apply(tf.data.experimental.assert_cardinality(8))
            .shuffle(8)
            .batch(3)
            .map(lambda x, y: (tf.image.resize(x, (8, 8)) / 255.0, tf.one_hot(y, 2)))
        ),
        lambda d: d.map(lambda x, y: ((x // 2 + x[::-1] // 2), y)),
        lambda d: d.apply(tf.data.experimental.assert_cardinality(3)),
        lambda d: d.map(lambda x, y: (FLIP(x, training=False), y)),
        lambda d: d.map(lambda x, y: (tf.image.resize(x, (8, 8)), y)).with_options(
            tf.data.Options()
        ),
    ],
)
def test_pipelines_that_give_the_same_rows_each_time_are_kept(data):
    pipeline = inspect(data(dataset(8, shuffle=False, batch=3)))
    assert pipeline.batch_size == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (tf.concat([x, x], 0), tf.concat([y, y], 0)),
        lambda x, y: (x[:3], y[:3]),
    ],
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_map_that_changes_the_number_of_rows_of_a_batch_is_found_out(change, shuffle):
    data = dataset(16, shuffle=shuffle).map(change)
    with pytest.raises(NotCacheable, match=r"another number of rows than its batching makes"):
        FeatureCache().dataset(tiny_backbone(), data)


def test_data_of_the_wrong_kind_are_refused_with_what_to_do():
    with pytest.raises(TypeError, match=r"`data` is a ndarray\. Expected a tf.data.Dataset"):
        FeatureCache().dataset(tiny_backbone(), images(8))
    with pytest.raises(TypeError, match=r"`backbone` is a Functional\. Expected a FrozenBackbone"):
        FeatureCache().dataset(tiny_network(), dataset(8))
    with pytest.raises(TypeError, match="directory=5"):
        FeatureCache(5)
    with pytest.raises(NotCacheable, match="there are no rows in it"):
        FeatureCache().array(tiny_backbone(), images(0))


def test_the_way_that_keras_reads_image_folders_is_kept(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            keras.utils.save_img(tmp_path / name / f"{i}.png", images(1, seed=i)[0])
    data = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(SIZE, SIZE), batch_size=4, seed=1, verbose=False
    )
    kept = FeatureCache().dataset(tiny_backbone(), data)
    assert sorted(activations(kept)[1]) == [0] * 5 + [1] * 5


@pytest.mark.slow
def test_changed_weights_are_never_answered_with_old_activations():
    backbone, cache = tiny_backbone(), FeatureCache(verbose=False)
    before = cache.array(backbone, images(8))
    kernel = next(weight for weight in backbone.weights if weight.name == "kernel")
    kernel.assign(kernel * 2)
    after = cache.array(backbone, images(8))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, FeatureCache(verbose=False).array(backbone, images(8)))
