"""Runs as Ray jobs: the launcher that ``instance_ray.yaml`` names, for when one machine is not enough.

A run (one stage of one hour) stays one process, with the executor that it has everywhere. What changes is where the
process begins: on a node of a Ray cluster that has free what the run's steps ask for. The definitions know nothing of
it. Nodes need the program ``dagster`` on their PATH, and in their environment what runs need anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus  # launchers are extended by these

from laps.errors import InputError
from laps_dagster.processes import RAY_JOB_VARIABLE, is_gone, made_by_ray, process_of, ray_job_of
from laps_dagster.runs import THREADS

try:
    from dagster_ray import RayRunLauncher
    from dagster_ray.configs import USER_DEFINED_RAY_KEY, RayExecutionConfig
except ModuleNotFoundError as error:
    raise InputError(
        f"the instance file chooses Ray, and {error.name} is not installed",
        where="run_launcher in dagster.yaml",
        fix="pip install '.[postgres,ray]' in the project, or choose instance.yaml or instance_postgres.yaml.",
    ) from error

if TYPE_CHECKING:
    from dagster._core.launcher import LaunchRunContext
    from dagster._serdes import ConfigurableClassData
    from ray.job_submission import JobDetails

_LONGEST = 2000
_REQUEST = dg.Shape(
    {
        "num_cpus": dg.Field(float, is_required=False),
        "num_gpus": dg.Field(float, is_required=False),
        "memory": dg.Field(int, is_required=False),
        "resources": dg.Field(dg.Map(str, float), is_required=False),
    }
)


def largest(requests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What one process needs to make several steps one after the other: of each resource the largest request."""
    needed: dict[str, Any] = {}
    for request in requests:
        for name, amount in request.items():
            if name == "resources":
                needed[name] = largest([needed.get(name, {}), amount])
            else:
                needed[name] = max(needed.get(name, 0), amount)
    return needed


class RayLauncher(RayRunLauncher):
    """Starts each run as a Ray job that asks for what the run's steps need, and tells which runs are lost.

    Args:
        steps: for names of steps, what a run that has this step asks for (``num_cpus``, ``num_gpus``, ``memory`` in
            bytes, ``resources``). A run asks for the most that one of its steps does, and for what the other settings
            say (``num_cpus`` and so on) where none of its steps says anything.
        settings: those of :class:`dagster_ray.RayRunLauncher`.
    """

    def __init__(
        self,
        steps: Mapping[str, Mapping[str, Any]] | None = None,
        inst_data: ConfigurableClassData | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(inst_data=inst_data, **settings)
        self.steps = steps or {}

    @classmethod
    def config_type(cls) -> Any:
        return {
            **cast("dict[str, Any]", super().config_type()),
            "steps": dg.Field(dg.Map(str, _REQUEST), is_required=False),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> RayLauncher:
        return cls(config_value.get("steps"), inst_data, **config_value["ray"])

    def request(self, run: dg.DagsterRun) -> RayExecutionConfig:
        """What a run asks for: by its tag ``dagster-ray/config``, by its steps, by the launcher's settings."""
        general = {name: getattr(self, name) for name in ("num_cpus", "num_gpus", "memory", "resources")}
        plan = self._instance.get_execution_plan_snapshot(dg._check.not_none(run.execution_plan_snapshot_id))
        named = largest(self.steps.get(step, {}) for step in plan.step_keys_to_execute)
        tagged = RayExecutionConfig.from_tags(run.tags).model_dump(exclude_none=True)
        asked = {name: amount for name, amount in general.items() if amount is not None}
        return RayExecutionConfig(**{"runtime_env": self.runtime_env, **asked, **named, **tagged})

    def launch_run(self, context: LaunchRunContext) -> None:
        # Known before the process is: its life is Ray's to tell, and not that of a process on any machine.
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, made_by_ray(run.run_id, _job_of(run)))
        super().launch_run(context)

    def _launch_ray_job(self, submission_id: str, entrypoint: str, run: dg.DagsterRun) -> None:
        request = self.request(run)
        runtime_env = dict(request.runtime_env or {})
        runtime_env["env_vars"] = {**environment_of(request, submission_id), **runtime_env.get("env_vars", {})}
        told = request.model_copy(update={"runtime_env": runtime_env})
        # The library reads what a run asks for from this tag alone.
        tags = {**run.tags, USER_DEFINED_RAY_KEY: told.model_dump_json(exclude_none=True)}
        super()._launch_ray_job(submission_id, entrypoint, run.with_tags(tags))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run under way has lost its process, which the daemon's monitoring asks.

        Runs that are no Ray jobs, such as those of ``laps backfill``, are judged by their process where this machine
        can. While the cluster does not answer, nothing is known, and the error passes to the monitoring, which asks
        again.
        """
        job = ray_job_of(run)
        if job is None:
            process = process_of(run)
            gone = process is not None and is_gone(process)
            return CheckRunHealthResult(WorkerStatus.FAILED if gone else WorkerStatus.RUNNING)
        try:
            details = self.client.get_job_info(job)
        except RuntimeError as error:
            if "does not exist" not in str(error):
                raise
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Ray knows no job {job}: its head was started again")
        if details.status.is_terminal():
            return CheckRunHealthResult(WorkerStatus.FAILED, f"{_in_words(details)}, and the run had not ended")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """The job's node and what Ray says of it; the library's own answer shows the job's environment too."""
        job = ray_job_of(run)
        if job is None:
            return None
        try:
            details = self.client.get_job_info(job)
        except RuntimeError as error:
            return f"Ray job {job}: {error}"
        return _in_words(details)


def _in_words(details: JobDetails) -> str:
    # With the message comes the end of the job's log, in which the command takes thousands of characters.
    lines = [line for line in (details.message or "").splitlines() if not line.startswith("Running entrypoint")]
    said = "\n".join(lines)[-_LONGEST:]
    node = f" on node {details.driver_node_id}" if details.driver_node_id else ""
    return f"Ray job {details.submission_id}{node} is {details.status.value.lower()}: {said}"


def environment_of(request: RayExecutionConfig, job: str) -> dict[str, str]:
    """What the process of a job is told by its environment, beside that of its node."""
    threads = str(max(1, int(request.num_cpus or 1)))
    # Ray leaves a node's GPUs in sight of jobs that asked for none, and torch would use them.
    hidden = {} if request.num_gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {**dict.fromkeys(THREADS, threads), **hidden, RAY_JOB_VARIABLE: job}


def _job_of(run: dg.DagsterRun) -> str:
    from dagster_ray.core.run_launcher import get_job_submission_id_from_run_id

    return get_job_submission_id_from_run_id(run.run_id)
