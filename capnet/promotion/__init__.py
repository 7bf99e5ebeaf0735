"""Who becomes `champion`: policy, verdict, gate, versions, page, history, copies. Nothing here scores an image."""
