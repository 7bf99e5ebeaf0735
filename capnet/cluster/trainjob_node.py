"""What every process of a TrainJob runs, with what the task put into a folder: `torchrun -m
capnet.cluster.trainjob_node FOLDER`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

from capnet.cluster.trainjob_files import ALIVE, JOB, METRICS, MODEL, abandon, is_abandoned, write_error
from capnet.config import parse
from capnet.contracts import read_json, write_json
from capnet.errors import CapnetError, ContractError
from capnet.stages import process_rank, run
from capnet.tasks import require_accelerators

EVERY = 5.0  # seconds between two checks whether somebody waits
PATIENCE = 900.0  # seconds in which another try of the task may replace one that was killed

log = logging.getLogger(__name__)


def main(folder: Path) -> None:
    """Train, and write model and metrics; a mistake of the user's is written down for the task, and ends the process
    with its exit code.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("capnet").setLevel(logging.WARNING if process_rank() else logging.INFO)
    try:
        if not (folder / JOB).is_file():
            todo = "the state volume must be one for all nodes (ReadWriteMany)"
            raise ContractError(
                "this node does not see what the task put onto the state volume", str(folder / JOB), todo
            )
        threading.Thread(target=leave_when_nobody_waits, args=(folder,), daemon=True).start()
        job = read_json(folder / JOB)
        require_accelerators(job["accelerators"])
        metrics = run(
            "train", parse(job["params"], "the pipeline's parameters"), job["inputs"], {"model": folder / MODEL}
        )
    except CapnetError as error:
        log.error("%s, exit code %d\n%s", error.heading, error.exit_code, error)
        write_error(folder, process_rank(), error)
        sys.exit(error.exit_code)
    if process_rank() == 0:
        write_json(folder / METRICS, metrics)


def leave_when_nobody_waits(folder: Path) -> None:
    """End this process once the task that waits for it says so, or has said nothing for long: a cancelled run need not
    hold GPUs for hours.

    It ends with 0, since Kubernetes would start anything else again. Checkpoints are on the volume.
    """
    last, since = "", time.monotonic()
    while not is_abandoned(folder) and time.monotonic() - since < PATIENCE:
        time.sleep(EVERY)
        try:
            now = (folder / ALIVE).read_text()
        except OSError:
            continue
        if now != last:
            last, since = now, time.monotonic()
    abandon(folder)  # the others end because of this one, not with 0, and are started again
    log.warning("the task that waits for this training has ended: so does this process")
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
