"""The executor of every run that the UI, the daemon or ``dagster asset materialize`` starts.

A run is one process: its steps share loaded models, and a run is what fails and is retried. The process writes its
identity onto the run before the first step asks for a place in a pool, and frees what killed processes left there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor  # Dagster has no public base to extend

from laps_dagster.processes import fail_lost_runs, marks

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan


class _IdentifiedProcess(InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, marks())
        fail_lost_runs(plan_context.instance)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(name="identified_process")
def identified_process(_: dg.InitExecutorContext) -> InProcessExecutor:
    """All steps of a run in its one process, whose identity the run carries."""
    return _IdentifiedProcess(retries=RetryMode.ENABLED)
