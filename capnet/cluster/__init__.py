"""Kubernetes: the names that everything agrees on, the API, and training on several nodes as a Kubeflow TrainJob. kfp
is in pipelines/.
"""
