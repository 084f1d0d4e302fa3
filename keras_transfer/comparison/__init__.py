"""Comparison of feature extraction with fine-tuning on the same data."""
