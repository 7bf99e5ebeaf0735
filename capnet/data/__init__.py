"""From native annotations and images to tables and tensors. Six rooms; nothing here imports the model: a loader is
given a callable.
"""
