"""MLflow runs: the store, the run of a training, where a model comes from. Versions and aliases are not here."""
