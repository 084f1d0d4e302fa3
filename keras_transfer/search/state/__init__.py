"""The files of a search: settings, outcomes of trials, its lock."""
