"""One scoring path for predict, the registered model, the gate and drift. Choosing a version is promotion's."""
