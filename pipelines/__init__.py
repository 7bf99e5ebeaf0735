"""Kubeflow pipelines: training.py and prediction.py chain the components; submit.py brings them to a cluster or runs
them here.
"""
