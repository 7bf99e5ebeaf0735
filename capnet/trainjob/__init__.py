"""Training on several nodes of a cluster: one task starts a Kubeflow Trainer TrainJob, follows it, takes its model and clears up."""
