"""The stages: read inputs, call pure functions, write outputs. One file a stage."""
