import keras_tuner

from keras_transfer.search.hyperband import hyperband_needs


def test_trials_that_hyperband_needs_are_those_of_keras_tuners_first_bracket():
    goal = keras_tuner.Objective("val_loss", "min")
    for epochs in (*range(1, 100), 243, 729, 730, 1000):
        oracle = keras_tuner.oracles.HyperbandOracle(objective=goal, max_epochs=epochs)
        first = oracle._get_num_brackets() - 1  # what has no public name in KerasTuner
        sizes = [oracle._get_size(first, i) for i in range(oracle._get_num_rounds(first))]
        assert hyperband_needs(epochs) == sum(sizes), epochs
