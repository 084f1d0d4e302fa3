"""Linear classifiers of frozen features: trial 0, and the comparison of backbones."""
