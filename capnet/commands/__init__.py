"""One file or folder a command that is no stage: options and messages; the work is done in the rooms."""
