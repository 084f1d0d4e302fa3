"""Engines: where the trials of a search run."""
