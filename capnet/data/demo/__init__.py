"""The drawn demo: scenes, brush and catalogue. Only `capnet demo-data` needs it."""
