#!/usr/bin/env python
"""Compares feature extraction with fine-tuning; the same as `keras-transfer compare`."""

import sys

from keras_transfer.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
