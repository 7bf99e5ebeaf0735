"""Component ingest."""
