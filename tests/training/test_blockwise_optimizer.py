import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import OPTIMIZERS

from keras_transfer.training.blockwise_optimizer import BlockwiseOptimizer


def variables(count: int = 2, value: float = 1.0) -> list[keras.Variable]:
    return [keras.Variable(np.full((3, 3), value, "float32"), name=f"v{i}") for i in range(count)]


def steps(optimizer, variable, gradient, count: int) -> np.ndarray:
    """The change that each of so many steps makes; the first one builds the optimizer."""

    def step():
        optimizer.apply([tf.constant(gradient)], [variable])

    values, graph = [variable.numpy()], tf.function(step)
    for number in range(count):
        graph() if number else step()
        values.append(variable.numpy())
    return np.diff(values, axis=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_groups_it_steps_as_the_optimizer_that_it_holds(name):
    plain, ours = variables(), variables()
    optimizer, blockwise = OPTIMIZERS[name](), BlockwiseOptimizer(OPTIMIZERS[name]())
    generator = np.random.default_rng(0)
    for _ in range(5):
        grads = [tf.constant(generator.normal(size=(3, 3)).astype("float32")) for _ in plain]
        optimizer.apply(grads, plain)
        blockwise.apply(grads, ours)
    for a, b in zip(plain, ours, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


@pytest.mark.traced
@pytest.mark.parametrize("name", ["adam", "nadam", "lamb"])
@pytest.mark.slow
def test_a_late_variable_takes_the_steps_of_a_fresh_optimizer(name):
    head, late, alone = variables(1)[0], variables(1)[0], variables(1)[0]
    blockwise = BlockwiseOptimizer(OPTIMIZERS[name]())
    blockwise.add_groups({"late": [late]})
    gradient = np.full((3, 3), 0.1, "float32")
    steps(blockwise, head, gradient, 500)
    slots = [v.numpy().copy() for v in blockwise.group("rest").variables]
    ours = steps(blockwise, late, gradient, 50)
    fresh = steps(OPTIMIZERS[name](), alone, gradient, 50)
    np.testing.assert_allclose(ours / fresh, 1, atol=1e-3)
    for before, after in zip(slots, blockwise.group("rest").variables, strict=True):
        np.testing.assert_array_equal(before, after.numpy())


@pytest.mark.traced
@pytest.mark.slow
def test_with_one_step_count_for_all_that_would_not_be_so():
    """What law 3 guards against happens in plain Adam: several times the learning rate."""
    head, late, alone = variables(1)[0], variables(1)[0], variables(1)[0]
    optimizer = OPTIMIZERS["adam"]()
    optimizer.build([head, late])
    gradient = np.full((3, 3), 0.1, "float32")
    steps(optimizer, head, gradient, 1000)
    ratio = steps(optimizer, late, gradient, 20) / steps(OPTIMIZERS["adam"](), alone, gradient, 20)
    assert ratio.max() > 2


def test_moving_averages_of_a_late_variable_start_at_its_weights():
    head, late = variables(1)[0], variables(1, value=3.12)[0]
    blockwise = BlockwiseOptimizer(OPTIMIZERS["sgd"](use_ema=True))
    blockwise.add_groups({"late": [late]})
    steps(blockwise, head, np.full((3, 3), 0.1, "float32"), 50)
    steps(blockwise, late, np.full((3, 3), 0.01, "float32"), 1)
    blockwise.finalize_variable_values([head, late])
    np.testing.assert_allclose(late.numpy(), 3.12, atol=1e-3)


def test_a_group_that_never_trained_is_not_overwritten_by_its_empty_average():
    head, late = variables(1)[0], variables(1, value=3.12)[0]
    blockwise = BlockwiseOptimizer(OPTIMIZERS["sgd"](use_ema=True))
    blockwise.add_groups({"late": [late]})
    steps(blockwise, head, np.full((3, 3), 0.1, "float32"), 2)
    blockwise.finalize_variable_values([head, late])
    np.testing.assert_array_equal(late.numpy(), np.float32(3.12))


def test_the_base_rate_moves_all_groups_and_scales_stay():
    head, late = variables()
    blockwise = BlockwiseOptimizer(keras.optimizers.SGD(1.0))
    blockwise.add_groups({"late": [late]})
    blockwise.set_scale("late", 0.1)
    blockwise.learning_rate = 0.5
    one = np.ones((3, 3), "float32")
    np.testing.assert_allclose(steps(blockwise, head, one, 1), -0.5, rtol=1e-6)
    np.testing.assert_allclose(steps(blockwise, late, one, 1), -0.05, rtol=1e-5)


def test_a_schedule_counts_all_steps():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.1])
    (variable,) = variables(1)
    blockwise = BlockwiseOptimizer(keras.optimizers.SGD(schedule))
    changes = steps(blockwise, variable, np.ones((3, 3), "float32"), 4)
    np.testing.assert_allclose(changes[:, 0, 0], [-1, -1, -0.1, -0.1], rtol=1e-6)


def test_the_norm_is_clipped_over_all_groups_together():
    head, late = variables()
    blockwise = BlockwiseOptimizer(keras.optimizers.SGD(1.0, global_clipnorm=1.0))
    blockwise.add_groups({"late": [late]})
    plain, plain_late = variables()
    keras.optimizers.SGD(1.0, global_clipnorm=1.0).apply([tf.ones((3, 3))] * 2, [plain, plain_late])
    blockwise.apply([tf.ones((3, 3))] * 2, [head, late])
    np.testing.assert_allclose(head.numpy(), plain.numpy(), rtol=1e-6)
    np.testing.assert_allclose(late.numpy(), plain_late.numpy(), rtol=1e-6)


def test_a_variable_of_no_group_is_named():
    head, unknown = variables()
    blockwise = BlockwiseOptimizer(OPTIMIZERS["adam"]())
    blockwise.build([head])
    with pytest.raises(ValueError, match="Unknown variable v1"):
        blockwise.apply([tf.ones((3, 3))], [unknown])


def test_an_optimizer_of_optimizers_is_refused():
    multi = keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.Adam())
    with pytest.raises(ValueError, match="MultiOptimizer, which holds several already"):
        BlockwiseOptimizer(multi)


def test_it_takes_over_the_steps_and_slots_of_an_optimizer_that_has_trained():
    plain, ours = variables(1)[0], variables(1)[0]
    reference, optimizer = OPTIMIZERS["adam"](), OPTIMIZERS["adam"]()
    gradient = np.full((3, 3), 0.3, "float32")
    steps(reference, plain, gradient, 10)
    steps(optimizer, ours, gradient, 5)
    blockwise = BlockwiseOptimizer(optimizer)
    steps(blockwise, ours, gradient, 5)
    assert int(blockwise.iterations) == 10
    np.testing.assert_allclose(plain.numpy(), ours.numpy(), rtol=1e-6)
