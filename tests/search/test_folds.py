"""Folds of images, as rows of activations that are kept once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import images, relative_difference, snapshot, tiny_backbone

from keras_transfer import BlockUnfreezer, FeatureCache, Flips, TransferModel, image_folder
from keras_transfer.features.pipelines import inspect
from keras_transfer.features.rows import ArrayInMemory, CachedRows, selected
from keras_transfer.features.storage import in_temporary_file

COUNTS = {"a": 13, "b": 24, "c": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for first, (name, count) in enumerate(COUNTS.items()):
        (root / name).mkdir()
        for i in range(count):
            keras.utils.save_img(
                root / name / f"{i:02}.png", images(1, 16, seed=100 * first + i)[0]
            )
    return root


def read(photos, **options):
    return image_folder(photos, image_size=16, batch_size=6, verbose=0, **options)


def names(paths):
    return {"/".join(path.parts[-2:]) for path in paths}


def rows_of(dataset):
    """Images and labels in path order."""
    return tuple(map(np.concatenate, zip(*dataset.ordered.as_numpy_iterator(), strict=True)))


# ---- which images are in them


@pytest.mark.parametrize("k", [2, 5])
def test_each_image_of_train_and_valid_is_validated_on_once(photos, k):
    data = read(photos)
    both = names(data.paths["train"]) | names(data.paths["valid"])
    folds = data.folds(k)
    assert len(folds) == k
    for train, valid in folds:
        assert names(train.paths) | names(valid.paths) == both
        assert not names(train.paths) & names(valid.paths)
    validated = [name for _, valid in folds for name in names(valid.paths)]
    assert sorted(validated) == sorted(both)


def test_classes_have_their_shares_in_each_fold_and_folds_the_same_size(photos):
    folds = read(photos).folds(4)
    counts = np.array([np.bincount(valid.labels, minlength=3) for _, valid in folds])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


@pytest.mark.slow
def test_the_seed_decides_and_the_way_in_which_train_and_valid_were_parted_does_not(photos):
    def parts(of_folds, **options):
        folds = read(photos, test_split=0, **options).folds(2, seed=of_folds)
        return [names(valid.paths) for _, valid in folds]

    assert parts(0) == parts(0) == parts(0, validation_split=0.3) == parts(0, seed=5)
    assert parts(0) == parts(0, validation_split=0)
    assert parts(0) != parts(1)


def test_both_together_are_all_images_but_those_to_test_on(photos):
    data = read(photos)
    both = data.train_and_valid
    assert data.train_and_valid is both  # its order goes on from fit to fit
    assert names(both.paths) == names(data.paths["train"]) | names(data.paths["valid"])
    assert both.shuffle_seed == 0
    assert read(photos, validation_split=0).train_and_valid.labels.size == 38


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (1, ValueError, r"k holds 1\. Pass a whole number of 2 or more"),
        (8, ValueError, r"k=8 folds of 38 images, 7 of them of the smallest class 'c'"),
        (2.0, TypeError, r"k holds 2\.0\. Pass a whole number of 2 or more"),
        (True, TypeError, r"k holds True"),
    ],
)
def test_a_number_of_folds_that_cannot_be_is_refused(photos, k, error, message):
    with pytest.raises(error, match=message):
        read(photos).folds(k)


# ---- they are datasets like the others


def test_they_have_what_the_other_datasets_have(photos):
    data = read(photos)
    for train, valid in data.folds(3):
        for fold in (train, valid, data.train_and_valid):
            pixels, labels = rows_of(fold)
            np.testing.assert_array_equal(labels, fold.labels)
            assert [path.parent.name for path in fold.paths] == ["abc"[i] for i in labels]
            assert list(fold.paths) == sorted(fold.paths)
            expected = keras.utils.load_img(fold.paths[5])
            np.testing.assert_array_equal(pixels[5], np.asarray(expected))
            assert fold.class_names == fold.ordered.class_names == ("a", "b", "c")
            assert fold.identity == fold.ordered.identity
            assert len(fold.content()) == 64
        assert (train.shuffle_seed, valid.shuffle_seed) == (0, None)
        assert valid.ordered is valid


def test_the_part_to_train_on_is_shuffled_anew_in_step_with_its_row_numbers(photos):
    train, _ = read(photos).folds(3)[1]
    pixels, _ = rows_of(train)
    epochs = []
    for epoch in range(2):
        index = train.row_order.of_epoch(epoch)
        given = np.concatenate([x for x, _ in train.as_numpy_iterator()])
        np.testing.assert_array_equal(given, pixels[index])
        epochs.append(index)
    assert not np.array_equal(*epochs)


@pytest.mark.slow
def test_no_two_of_them_are_taken_for_one_another(photos):
    data = read(photos)
    folds = [one for k in (3, 5) for fold in data.folds(k) for one in fold]
    folds += [one for fold in data.folds(3, seed=1) for one in fold]
    folds += [data.train, data.valid, data.test, data.train_and_valid]
    assert len({one.identity for one in folds}) == len(folds)
    again = [one.identity for fold in read(photos).folds(3) for one in fold]
    assert again == [one.identity for one in folds[:6]]


@pytest.mark.parametrize("of", ["afresh", "folds", "train_and_valid"])
@pytest.mark.slow
def test_made_again_the_order_begins_again(photos, of):
    data = read(photos)

    def order(seed=None):
        if of == "folds":
            train = data.folds(3)[0][0]
        else:
            again = data.afresh(seed)
            train = again.train if of == "afresh" else again.train_and_valid
        return np.concatenate([labels for _, labels in train]).tolist()

    assert order() == order()
    if of == "afresh":
        assert order(1) == order(1) != order()
    assert data.afresh().train.identity == data.train.identity
    assert data.afresh().valid is data.valid


# ---- on kept activations


def trained(cache, photos, fits=1, together=False):
    keras.utils.set_random_seed(1)  # which every shuffle takes in when it is made
    data = read(photos)
    train, valid = (data.train_and_valid, data.test) if together else data.folds(3)[1]
    model = TransferModel(tiny_backbone(), 3, hidden=8, dropout=0, feature_cache=cache)
    model.compile(keras.optimizers.SGD(1e-2))
    for _ in range(fits):
        callbacks = [BlockUnfreezer({2: "block4", 3: "block3"})] if fits == 1 else []
        history = model.fit(
            train, validation_data=valid, epochs=4 // fits, verbose=0, callbacks=callbacks
        )
    return snapshot(model), history.history


def assert_same(kept, plain):
    assert relative_difference(kept[0], plain[0]) <= 1e-5
    for name in plain[1]:
        np.testing.assert_allclose(kept[1][name], plain[1][name], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_law_4_a_fold_trains_as_end_to_end_with_activations_in_ram_and_in_a_folder(
    photos, tmp_path
):
    cache = FeatureCache(tmp_path, memory_limit=5_000, verbose=False)
    assert_same(trained(cache, photos), trained(None, photos))
    assert len(cache) == 6  # three cut points of train and of valid, and no other data


@pytest.mark.slow
def test_law_4_holds_for_all_images_together_and_where_the_order_goes_on(photos):
    cached = trained(FeatureCache(verbose=False), photos, together=True, fits=2)
    assert_same(cached, trained(None, photos, together=True, fits=2))


@pytest.mark.slow
def test_each_fold_is_trained_on_as_if_it_alone_were_kept(photos):
    """The same rows as arrays of their own: other batches in extraction, else the same."""
    data, cache, backbone = read(photos), FeatureCache(verbose=False), tiny_backbone()
    for train, valid in data.folds(2):
        for fold in (train, valid):
            kept = cache.dataset(backbone, fold.ordered)
            given = [(x["after:pooling"], y) for x, y in kept.as_numpy_iterator()]
            features, labels = map(np.concatenate, zip(*given, strict=True))
            np.testing.assert_allclose(features, backbone(rows_of(fold)[0]), atol=1e-6)
            np.testing.assert_array_equal(labels, fold.labels)


@pytest.mark.slow
def test_nothing_is_computed_for_folds_where_train_and_valid_are_kept(photos, computed):
    data, cache, backbone = read(photos), FeatureCache(verbose=False), tiny_backbone()
    cache.dataset(backbone, data.train)
    cache.dataset(backbone, data.valid)
    assert sum(computed) == 38
    computed.clear()
    train, valid = data.folds(3)[2]
    for part in (train, valid, train.ordered, data.train_and_valid):
        list(cache.dataset(backbone, part))
    assert computed == []


@pytest.mark.slow
def test_for_all_folds_images_are_run_through_once_also_under_flips(photos, computed, tmp_path):
    data, cache = read(photos), FeatureCache(tmp_path, verbose=False)
    for train, valid in data.folds(3)[:2]:
        model = TransferModel(tiny_backbone(), 3, feature_cache=cache, augmentation=Flips())
        model.compile()
        model.fit(train, validation_data=valid, epochs=1, verbose=0)
    assert sum(computed) == 2 * 38  # images as they are, and mirrored
    again = FeatureCache(tmp_path, verbose=False)  # as another run
    list(again.dataset(tiny_backbone(), read(photos).folds(5)[2][0]))
    assert sum(computed) == 2 * 38


@pytest.mark.slow
def test_under_flips_each_row_is_one_of_its_own_views(photos):
    data, backbone = read(photos), tiny_backbone()
    train, _ = data.folds(3)[0]
    pixels, _ = rows_of(train)
    views = [np.asarray(backbone(view)) for view in (pixels, pixels[:, :, ::-1])]
    seen: list[np.ndarray] = []

    class Head(keras.layers.Layer):
        def call(self, features):
            tf.py_function(lambda x: seen.append(x.numpy()), [features], [])
            return features[:, :3]

    model = TransferModel(backbone, 3, head=Head(dtype="float32"), augmentation=Flips())
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[], run_eagerly=True)
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(train, epochs=1, verbose=0)
    given = np.concatenate(seen)
    distance = np.array([np.abs(given[:, None] - view[None]).max(-1) for view in views])
    assert distance.min(axis=(0, 2)).max() < 1e-5
    assert len(set(distance.min(axis=0).argmin(axis=1).tolist())) == len(pixels)


# ---- rows of several arrays


@pytest.mark.parametrize("where", ["RAM", "files", "both"])
def test_selected_rows_are_read_and_gathered_from_wherever_they_are(where, tmp_path):
    whole = np.random.default_rng(0).normal(size=(10, 3, 2)).astype("float32")
    labels = np.arange(10, dtype="int32")
    parts = []
    for number, rows in enumerate((slice(0, 6), slice(6, 7), slice(7, 10))):
        in_file = where == "files" or (where == "both" and number == 1)
        array = (
            in_temporary_file(iter([whole[rows]]), tmp_path)
            if in_file
            else ArrayInMemory(whole[rows])
        )
        parts.append(CachedRows(array, "float32", (labels[rows],)))
    places = np.array([9, 0, 6, 3, 7, 5])
    rows = selected(parts, places)
    assert (len(rows), rows.activations.nbytes) == (6, 6 * 24)
    np.testing.assert_array_equal(rows.read(1, 4), whole[places[1:4]])
    np.testing.assert_array_equal(np.concatenate(list(rows.chunks(2, 3))), whole[places[2:]])
    for index in ([0, 5, 2], [3], [1, 1, 1], []):
        wanted = np.array(index, "int64")
        gathered = tf.function(rows.gather)(tf.constant(wanted))
        np.testing.assert_array_equal(gathered, whole[places[wanted]])
        np.testing.assert_array_equal(rows.gather_rest(wanted)[0], labels[places[wanted]])


@pytest.mark.slow
def test_the_pipeline_of_a_fold_names_its_parts(photos):
    data = read(photos)
    train, _ = data.folds(2)[0]
    assert [part.identity for part in inspect(train).parts] == [
        data.train.identity,
        data.valid.identity,
    ]
    assert inspect(data.train).parts == ()
