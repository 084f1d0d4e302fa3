"""Several processes, on one machine or several, that run the trials of one search."""
