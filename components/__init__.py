"""Kubeflow Pipelines components: one folder each, a thin shim over the library; images.py names the container
images.
"""
