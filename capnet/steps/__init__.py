"""One file a stage: read inputs, call pure functions, write outputs."""
