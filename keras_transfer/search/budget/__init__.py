"""The time of a search: what is left, and what its end will take."""
