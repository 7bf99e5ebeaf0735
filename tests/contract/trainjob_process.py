"""The task that waits for a TrainJob, as a process: what a pod runs, without the files of KFP around it."""

import json
import logging
import sys

from capnet.cluster import trainjob_wait as follow
from capnet.cluster import trainjobs as jobs
from capnet.cluster.trainjob_run import train_on_nodes
from capnet.tasks import task

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    follow.EVERY = jobs.AGAIN = 0.02
    logging.basicConfig(format="%(message)s")
    with task({"runtime": {"threads": 2}, "train": {"batch_size": 64}}, seed=3) as prepared:
        train_on_nodes(prepared.params, arguments["inputs"], {"model": arguments["model"]}, arguments["nodes"])
