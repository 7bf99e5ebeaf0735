"""Component ingest."""

from components.ingest.component import ingest as ingest
