"""Jobs whose process ends in the middle of a step, for a code server to load; with the executor of the definitions."""

import os
import signal
import time
from collections.abc import Iterator

import dagster as dg

from laps_dagster.executor import identified_process
from resources.time_limit import within

# Named like those of hours: `laps status` looks at no others.
KILLED, STUCK = "track", "observe"


@dg.op
def killed(context: dg.OpExecutionContext) -> None:
    context.log.info("decoding /recordings/deadly.mp4")
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op
def stuck(context: dg.OpExecutionContext) -> None:
    def frames() -> Iterator[int]:
        context.log.info("decoding /recordings/endless.mp4")
        time.sleep(600)
        yield 0

    list(within(frames(), limit_s=0.1))


@dg.job(name=KILLED, executor_def=identified_process)
def killed_job() -> None:
    killed()


@dg.job(name=STUCK, executor_def=identified_process)
def stuck_job() -> None:
    stuck()


defs = dg.Definitions(jobs=[killed_job, stuck_job])
