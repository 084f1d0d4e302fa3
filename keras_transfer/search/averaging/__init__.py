"""The model of a search: the average of its best trials."""
