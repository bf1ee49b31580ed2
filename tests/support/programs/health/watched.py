"""A rank that is watched as the launcher's are: `python -m tests.support.programs.health.watched RUN`, after a start of torchrun's kind."""

import sys
from pathlib import Path

from jobs.submit.watched import run_watched
from vidmae.runs.record import RunFolder, job_id

if __name__ == "__main__":
    sys.exit(run_watched("vidmae.train.pretrain", RunFolder(Path(sys.argv[1])), job_id()))
