"""What works on one device works under MirroredStrategy: two logical CPUs, in one process."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TWO_DEVICES = """
    import os, sys
    from pathlib import Path
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    from conftest import SIZE, dataset, identical, images, labels, snapshot, tiny_backbone
    from keras_transfer import AveragedViews, BlockUnfreezer, Flips, Phase, TransferModel, report

    folder = Path(sys.argv[1])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    data = dataset(9, shuffle=False)  # the last batch has fewer images than there are devices
    unfreezer = BlockUnfreezer(
        [Phase("block4", at_epoch=1, restore_best=True)], monitor="loss", learning_rate=1e-5
    )
    with strategy.scope():
        plain = keras.Sequential([keras.Input((SIZE, SIZE, 3)), tiny_backbone(),
                                  keras.layers.Dense(1, activation="sigmoid")])
        plain.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        kept = TransferModel(tiny_backbone(), 2, hidden=4)
        kept.compile()
        kept.build((None, SIZE, SIZE, 3))
    for model in (plain, kept):
        model.fit(data, epochs=2, verbose=0, callbacks=[unfreezer])
        model.save(folder / "model.keras")
        loaded = keras.saving.load_model(folder / "model.keras")
        before = snapshot(model)
        assert identical(before, loaded)
        model.save_weights(folder / "model.weights.h5")
        model.load_weights(folder / "model.weights.h5")
        assert identical(before, model)

    averaged = AveragedViews.of(kept, Flips("mirror"))
    for model in (kept, averaged):
        expected = model(images(9)).numpy()
        np.testing.assert_allclose(model.predict(images(9), verbose=0), expected, atol=1e-6)
        accuracy = np.mean((expected[:, 0] > 0.5) == labels(9))
        np.testing.assert_allclose(model.evaluate(data, verbose=0)[1], accuracy, atol=1e-6)
        numbers = report(model, data, folder / type(model).__name__, verbose=0).numbers
        np.testing.assert_allclose(numbers.accuracy.value, accuracy, atol=1e-6)
    kept.export(folder / "export")
    served = tf.saved_model.load(str(folder / "export"))
    np.testing.assert_allclose(served.serve(images(9)), kept(images(9)), atol=1e-5)
"""


@pytest.mark.slow
def test_two_devices_do_what_one_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_DEVICES), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
