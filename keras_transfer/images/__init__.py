"""Images: files found by class, checked and decoded. Imports neither Keras nor TensorFlow."""
