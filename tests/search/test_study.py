import time
from types import SimpleNamespace

import pytest
from conftest import dataset
from test_hypermodel import hypermodel

from keras_transfer.search.study import SHARING, Study


def test_what_sharing_saves_is_measured_warm_and_kept_for_a_search_that_goes_on(
    tmp_path, monkeypatch
):
    part = SimpleNamespace(ordered=dataset(shuffle=False), labels=range(38))
    study = SimpleNamespace(
        data=SimpleNamespace(train=part, valid=part),
        hypermodel=hypermodel(),
        probe_folder=tmp_path,
        _seconds_per_image=lambda: Study._seconds_per_image(study),
    )
    now, calls = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def by_keras(backbone, after):
        def run(images):
            calls.append(after)
            now[0] += 100.0 if len(calls) == 1 else 0.5  # the first time it is traced
            batch.append(len(images))

        return run

    batch: list[int] = []
    monkeypatch.setattr("keras_transfer.search.study.by_keras", by_keras)
    first = Study.sharing(study, 7.0)
    assert first.seconds_per_image == 0.5 / batch[0]
    assert (first.images, first.seconds) == (76, 7.0)
    assert calls == [study.hypermodel.border("tiny")] * 2
    assert Study.sharing(study, 0.1) == first  # of another process, which found all kept
    (tmp_path / SHARING).write_text("torn")
    with pytest.warns(UserWarning, match="torn.*it is measured again"):
        assert Study.sharing(study, 3.0).seconds == 3.0
