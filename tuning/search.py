#!/usr/bin/env python
"""Searches for the best model for a folder of images; the same as `keras-transfer search`."""

import sys

from keras_transfer.cli.search import main

if __name__ == "__main__":
    sys.exit(main(is_process=True))
