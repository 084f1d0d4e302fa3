"""Serving: exports run by their own runtimes. Imports no Keras."""
