"""From native annotations and pictures to tables and tensors."""
