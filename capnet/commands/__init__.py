"""One file a command beside the stages: options and words; the work is done in the rooms."""
