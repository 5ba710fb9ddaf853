"""The executor of every run that the UI, the daemon or ``dagster asset materialize`` starts.

A run is one process: its steps share loaded models, and a run is what fails and is retried. The process writes its
identity onto the run before the first step asks for a place in a pool, and frees what killed processes left there.

A step that waits for a place sleeps. Dagster means it to and does not (1.13): it takes the least of 0 and the seconds
that are left, so a waiting run keeps a core busy that the runs it waits for could use.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.retries import RetryMode
from dagster._core.executor import in_process  # Dagster has no public base to extend

from laps_dagster.processes import fail_lost_runs, made_here

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan


# How long a waiting step sleeps before it asks again; Dagster's own intervals grow to 15 s, in which a place lies idle.
ASK_AGAIN_S = 2.0


class _Sleeper(InstanceConcurrencyContext):
    """The places in pools of a run: whoever waits for one sleeps."""

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        claimed = super().claim(concurrency_key, step_key, step_priority)
        if not claimed:
            known = self._pending_timeouts[step_key]
            self._pending_timeouts[step_key] = min(known, time.time() + ASK_AGAIN_S)
        return claimed

    def interval_to_next_pending_claim_check(self) -> float:
        return max(0.0, min(self._pending_timeouts.values(), default=0.0) - time.time())


# For all runs of this process, those of `laps backfill` too: they look the class up in that module.
in_process.InstanceConcurrencyContext = _Sleeper  # type: ignore[attr-defined]


class _IdentifiedProcess(in_process.InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, made_here(plan_context.run_id))
        fail_lost_runs(plan_context.instance)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="identified_process")
def identified_process(_: dg.InitExecutorContext) -> in_process.InProcessExecutor:
    """All steps of a run in its one process, whose identity the run carries."""
    return _IdentifiedProcess(retries=RetryMode.ENABLED)
