import os

import pytest

from keras_transfer.utils.processors import processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_processors_that_the_process_may_not_use_are_not_counted():
    allowed = os.sched_getaffinity(0)
    assert 1 <= processors() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)
