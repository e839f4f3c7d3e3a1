"""`python -m worker` with a probe in the engine's place: `probing_worker.py PROBE ARGUMENT…`."""

import sys
from functools import partial

import probes

from worker import __main__, celery_app, entries
from worker.forkserver import ForkServer

if __name__ == "__main__":
    entries.compress = getattr(probes, sys.argv[1])
    celery_app.ForkServer = partial(ForkServer, preload=())
    sys.exit(__main__.main(sys.argv[2:]))
