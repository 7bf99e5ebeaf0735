"""Readers of native annotation formats, one file a format."""
