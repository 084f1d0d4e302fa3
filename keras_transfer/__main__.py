"""`python -m keras_transfer` is the command `keras-transfer`."""

import sys

from keras_transfer.cli.main import main

sys.exit(main())
