"""The command `keras-transfer`: one file a verb."""
