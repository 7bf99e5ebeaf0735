"""Commands beside the stages, one file each."""
