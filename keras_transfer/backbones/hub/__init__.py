"""SavedModels and TF-Hub modules as native Keras layers."""
