"""CAPNET: long-tailed multi-label recognition with CLIP, from pictures to a registered model."""

import os

__version__ = "0.1.0"

# Turns of a loop in which a thread of torch waits for the others before it sleeps. The default, 300,000, takes
# milliseconds, lost in every operation where another program has a core. Read when torch is imported
# (docs/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
