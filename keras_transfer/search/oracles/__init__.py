"""KerasTuner's oracles, which propose the trials, in files that survive a crash."""
