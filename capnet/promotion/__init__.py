"""Who becomes `champion`: policy, verdict, gate, history, copies. Nothing here scores an image."""
