"""Utilities that know nothing of networks: files, memory, progress, intervals."""
