"""Alarms arrive at a webhook and by e-mail, once, together, and without what is secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id  # not public

from laps.errors import AlarmError, InputError, StoreError
from laps.tables import RAW_VIDEO
from laps_dagster import alarms as module
from laps_dagster.alarms import FIRST_PAUSE_S, FIRST_RETRY_S, LONGEST_PAUSE_S, Told, Trouble, alarms, compose
from laps_dagster.doctor import _alarms
from resources.alarms import Email, Message, Webhook, channels
from resources.publishing import publish
from resources.settings import store_settings
from resources.store import Store
from tests.conftest import Laps
from tests.origins import origin_of
from tests.receivers import MailReceiver, WebhookReceiver, serving
from tests.test_publishing import HOUR, OVERLAPPING

HOURS = [f"cam1|2026-01-05-{hour:02}:00" for hour in range(24)]
MESSAGE = Message("LAPS: run observe failed", "LAPS: run observe failed\nwhy: no room – nothing left", {"count": 1})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEBHOOK", "EMAIL", "SMTP", "SMTP_USER", "SMTP_PASSWORD", "SMTP_SECURITY", "FROM", "LEVEL"):
        monkeypatch.delenv(f"LAPS_ALARM_{name}", raising=False)
    monkeypatch.setenv("LAPS_UI_URL", "https://laps.example.org/")
    monkeypatch.delenv("LAPS_DOCS_URL", raising=False)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver, serving(receiver):
        monkeypatch.setenv("LAPS_ALARM_WEBHOOK", receiver.url)
        yield receiver


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailReceiver]:
    with MailReceiver() as receiver, serving(receiver):
        monkeypatch.setenv("LAPS_ALARM_EMAIL", "night@example.org, day@example.org")
        monkeypatch.setenv("LAPS_ALARM_SMTP", receiver.address)
        yield receiver


# --- the receivers -----------------------------------------------------------------------------------------------


def test_a_webhook_gets_text_and_fields(webhook: WebhookReceiver) -> None:
    (channel,) = channels()
    channel.send(MESSAGE)
    assert webhook.taken == [{"text": MESSAGE.text, "count": 1}]


def test_an_email_gets_subject_and_text(mail: MailReceiver) -> None:
    (channel,) = channels()
    channel.send(MESSAGE)
    (taken,) = mail.taken
    assert taken["Subject"] == MESSAGE.subject and taken["To"] == "night@example.org, day@example.org"
    assert taken.get_content().splitlines() == MESSAGE.text.splitlines()


def test_who_was_refused_is_said_and_the_others_are_told_once(
    mail: MailReceiver, instance: dg.DagsterInstance, clock: Clock, laps_command: Laps
) -> None:
    mail.refused = {"day@example.org"}
    code, out, err = laps_command("alarm", "test")
    assert (code, out, err) == (1, "email: sent\n", "email: refused for day@example.org (550 no such user)\n")
    run(instance)
    watch = Watch(instance)
    assert watch.look() == "email: told 1, refused for day@example.org (550 no such user)"
    clock.ahead_s = FIRST_PAUSE_S + 1
    assert watch.look() == "nothing to tell" and len(mail.taken) == 2
    mail.refused.add("night@example.org")
    (channel,) = channels()
    with pytest.raises(AlarmError, match=r"it refused night@example\.org, day@example\.org"):
        channel.send(MESSAGE)


def test_an_email_about_a_file_whose_name_is_no_text_arrives(mail: MailReceiver) -> None:
    (channel,) = channels()
    channel.send(Message("LAPS: run observe failed", "LAPS: run observe failed\nwhy: v\udce4deo.mp4: cannot be read"))
    assert "v?deo.mp4" in mail.taken[0].get_content()


def test_a_mail_server_that_asks_who_it_is_is_told(mail: MailReceiver) -> None:
    mail.login = ("laps", "geheim")
    host, port = mail.address.split(":")
    right = Email(("a@example.org",), host, int(port), "none", "laps@example.org", "laps", "geheim")
    right.send(MESSAGE)
    assert len(mail.taken) == 1
    wrong = Email(("a@example.org",), host, int(port), "none", "laps@example.org", "laps", "falsch")
    with pytest.raises(AlarmError, match="it refused user or password, 535") as refused:
        wrong.send(MESSAGE)
    assert "falsch" not in str(refused.value) and "falsch" not in repr(wrong)


def test_what_a_receiver_says_is_told_without_its_url(webhook: WebhookReceiver) -> None:
    (channel,) = channels()
    webhook.status = 404
    with pytest.raises(AlarmError, match="the webhook: answered 404 Not Found") as refused:
        channel.send(MESSAGE)
    with pytest.raises(AlarmError, match="the webhook: could not be reached") as away:
        Webhook("http://127.0.0.1:9/services/secret-token").send(MESSAGE)
    for said in (str(refused.value), str(away.value), repr(channel)):
        assert "secret-token" not in said
    assert refused.value.__cause__ is None and away.value.__cause__ is None


def test_characters_that_cannot_be_sent_hold_up_no_other_receiver(
    mail: MailReceiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a URL nor a password shows in what is said of it."""
    mail.login = ("laps", "geheim")
    host, port = mail.address.split(":")
    for channel in (
        Webhook("http://127.0.0.1:9/services/schlüssel"),
        Webhook(f"http://{'ü' * 64}.example.org/"),
        Email(("a@example.org",), host, int(port), "none", "laps@example.org", "laps", "schlüssel"),
    ):
        with pytest.raises(AlarmError, match="not plain ASCII") as refused:
            channel.send(MESSAGE)
        assert not any(part in str(refused.value) for part in ("ü", "xfc", "schl"))
        assert refused.value.__cause__ is None and refused.value.__suppress_context__
    mail.login = None
    monkeypatch.setenv("LAPS_ALARM_WEBHOOK", "http://127.0.0.1:9/services/schlüssel")
    run(instance)
    watch = Watch(instance)
    said = watch.look()
    assert "webhook: 1 could not be told" in said and "email: told 1" in said
    assert "email: quiet until" in watch.look() and len(mail.taken) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_a_webhook_that_redirects_has_not_taken_the_alarm(webhook: WebhookReceiver, status: int) -> None:
    (channel,) = channels()
    webhook.status = status
    with pytest.raises(AlarmError, match=rf"redirects \({status}\).*Give the final https:// URL") as refused:
        channel.send(MESSAGE)
    assert webhook.attempts == 1 and "secret-token" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"WEBHOOK": "ftp://example.org/secret"}, "LAPS_ALARM_WEBHOOK: is no http:// or https:// URL"),
        ({"WEBHOOK": "https://[secret/"}, "LAPS_ALARM_WEBHOOK: is no http:// or https:// URL"),
        ({"EMAIL": "night"}, "'?night'? is no address"),
        ({"EMAIL": "a@b.org", "SMTP": "mail:x"}, "LAPS_ALARM_SMTP: 'x' is no port"),
        ({"EMAIL": "a@b.org", "SMTP_USER": "u", "SMTP_SECURITY": "none"}, "a password would be sent in the clear"),
    ],
)
def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"LAPS_ALARM_{name}", value)
    with pytest.raises(InputError, match=said) as wrong:
        channels()
    assert "secret" not in str(wrong.value)


# --- what is said ------------------------------------------------------------------------------------------------


def trouble(hour: str, why: str = "the object storage did not answer", what: str = "run observe") -> Trouble:
    return Trouble(what, "error", hour, f"{hour}: {why}", "`laps backfill` tries again", f"run-of-{hour}")


def test_one_alarm_says_what_where_why_and_what_to_do() -> None:
    message = compose([trouble(HOURS[8])])
    assert message.text.splitlines() == [
        "LAPS: run observe failed, cam1 2026-01-05-08:00 UTC",
        f"why: {HOURS[8]}: the object storage did not answer",
        "what to do: `laps backfill` tries again",
        f"run: https://laps.example.org/runs/run-of-{HOURS[8]}",
    ]
    assert message.fields["alarms"][0]["camera"] == "cam1"


def test_hundreds_of_failures_are_one_short_message() -> None:
    night = [trouble(f"cam{camera}|2026-01-{day:02}-08:00") for camera in (1, 2) for day in range(1, 29)] * 5
    message = compose([*night, trouble(HOURS[3], "no room", "run segment")])
    assert message.subject == "LAPS: 281 alarms (281 runs failed) of cam1, cam2"
    assert "280 x run observe failed (cam1|2026-01-01-08:00," in message.text and "and 51 more" in message.text
    assert "1 x run segment failed" in message.text
    assert len(message.text) < 1500 and len(message.fields["alarms"]) == 50


def test_what_to_do_about_several_cameras_names_none() -> None:
    hours = [f"cam{camera}|2026-01-05-0{hour}:00" for camera in (1, 2) for hour in (8, 9)]
    fixes = [f"`laps backfill --camera {hour[:4]} --only missing` tries again" for hour in hours]
    troubles = [replace(trouble(hour), fix=fix) for hour, fix in zip(hours, fixes, strict=True)]
    assert "what to do: `laps backfill --camera cam1 --only missing` tries again" in compose(troubles[:2]).text
    assert "what to do: `laps backfill --only missing` tries again" in compose(troubles).text


# --- the sensor --------------------------------------------------------------------------------------------------


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=quiet) as instance:
        yield instance


class Clock:
    """The time that the sensor sees."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        self.ahead_s = 0.0
        real = time.time
        monkeypatch.setattr(module.time, "time", lambda: real() + self.ahead_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Watch:
    """The sensor `alarms`, evaluated with its cursor."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None

    def look(self) -> str:
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = alarms(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        assert isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message)


def no_room() -> None:
    raise StoreError("cannot be written: no room", where="raw_video", fix="Make room.")


def run(
    instance: dg.DagsterInstance,
    *,
    ok: bool = False,
    tags: dict[str, str] | None = None,
    job: str = "observe",
    fail: Callable[[], None] = no_room,
) -> str:
    """A run of a job that fails, or not; its id."""

    @dg.op
    def step() -> None:
        if not ok:
            fail()

    made = dg.GraphDefinition(job, node_defs=[step]).to_job()
    return made.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


def check(
    instance: dg.DagsterInstance,
    severity: dg.AssetCheckSeverity,
    *,
    passed: bool = False,
    blocking: bool = False,
    tags: dict[str, str] | None = None,
) -> None:
    @dg.asset
    def segments() -> None: ...

    @dg.asset_check(asset=segments, blocking=blocking)
    def rate() -> dg.AssetCheckResult:
        metadata = {"what to do": "docs/alarms.md#rate"}
        return dg.AssetCheckResult(passed=passed, severity=severity, description="2 a minute", metadata=metadata)

    dg.materialize([segments, rate], instance=instance, tags=tags, raise_on_error=False)


def test_a_failed_run_is_told_once(webhook: WebhookReceiver, instance: dg.DagsterInstance, clock: Clock) -> None:
    watch = Watch(instance)
    run(instance, ok=True)
    assert watch.look() == "nothing to tell" and not webhook.taken
    run_id = run(instance, tags={"dagster/partition": HOURS[8]})
    assert watch.look() == "webhook: told 1"
    (message,) = webhook.taken
    assert message["text"].splitlines() == [
        "LAPS: run observe failed, cam1 2026-01-05-08:00 UTC",
        "why: raw_video: cannot be written: no room. Make room.",
        "what to do: `laps backfill --camera cam1 --only missing` tries again; docs/alarms.md#run-failed",
        f"run: https://laps.example.org/runs/{run_id}",
    ]
    clock.ahead_s = FIRST_PAUSE_S + 1
    assert watch.look() == "nothing to tell"
    assert len(webhook.taken) == 1


def test_a_failed_run_of_no_hour_is_told_with_the_remedy_of_its_job(
    webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    for job in ("compact", "somebodys_own"):
        run(instance, job=job)
    assert Watch(instance).look() == "webhook: told 2"
    text = webhook.taken[0]["text"]
    assert "what to do: `laps compact`; docs/alarms.md#jobs-without-hours" in text
    assert "what to do: re-execute the run in the UI; docs/alarms.md#jobs-without-hours" in text
    assert "--only missing" not in text


def test_rows_that_were_refused_lead_to_what_that_means(
    webhook: WebhookReceiver, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    store = Store(str(tmp_path / "store"))
    store_settings(store)
    run(instance, tags={"dagster/partition": HOUR.key}, fail=lambda: publish(store, RAW_VIDEO, HOUR, OVERLAPPING))
    assert Watch(instance).look() == "webhook: told 1"
    text = webhook.taken[0]["text"]
    assert "the rows of raw_video do not add up" in text
    assert "what to do: `laps backfill --camera cam1 --only missing` tries again; docs/alarms.md#adds-up" in text


def test_a_check_that_blocks_is_told_once_with_how_the_hour_is_made_again(
    webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    check(instance, dg.AssetCheckSeverity.ERROR, blocking=True, tags={"dagster/partition": HOURS[8]})
    assert Watch(instance).look() == "webhook: told 1"
    assert (
        "what to do: `laps backfill --camera cam1 --only missing` tries again; docs/alarms.md#rate"
        in webhook.taken[0]["text"]
    )


def test_an_alarm_links_to_the_docs_where_they_can_be_read(
    webhook: WebhookReceiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPS_DOCS_URL", "https://git.example.org/laps/blob/main/")
    run(instance, tags={"dagster/partition": HOURS[8]})
    Watch(instance).look()
    link = "https://git.example.org/laps/blob/main/docs/alarms.md#run-failed"
    assert f"tries again; {link}\n" in webhook.taken[0]["text"]


def test_what_comes_soon_after_is_told_together(
    webhook: WebhookReceiver, instance: dg.DagsterInstance, clock: Clock
) -> None:
    watch = Watch(instance)
    run(instance)
    watch.look()
    for _ in range(3):
        run(instance)
        assert watch.look().startswith("webhook: quiet until")
    clock.ahead_s = FIRST_PAUSE_S + 1
    assert watch.look() == "webhook: told 3"
    assert [message["count"] for message in webhook.taken] == [1, 3]


def test_a_receiver_that_is_away_misses_nothing_and_holds_up_no_other(
    webhook: WebhookReceiver, mail: MailReceiver, instance: dg.DagsterInstance, clock: Clock
) -> None:
    watch = Watch(instance)
    webhook.status = 503
    run(instance)
    said = watch.look()
    assert "webhook: 1 could not be told" in said and "email: told 1" in said and webhook.url not in said
    run(instance)
    clock.ahead_s = FIRST_RETRY_S + 1
    webhook.status = 200
    assert "webhook: told 2" in watch.look()
    assert [message["count"] for message in webhook.taken] == [2] and len(mail.taken) == 1


def launched(instance: dg.DagsterInstance, will_retry: str) -> None:
    """A run that the daemon started, and that failed."""
    made = dg.DagsterRun(
        "observe",
        make_new_run_id(),
        status=dg.DagsterRunStatus.FAILURE,
        tags={"dagster/will_retry": will_retry},
        remote_job_origin=origin_of("observe"),
    )
    instance.add_run(made)


def test_a_run_that_is_tried_again_is_told_when_the_last_attempt_failed(
    webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    watch = Watch(instance)
    launched(instance, "true")
    assert watch.look() == "nothing to tell"
    launched(instance, "false")
    assert watch.look() == "webhook: told 1"


def test_a_run_of_a_command_is_told_although_dagster_means_to_try_it_again(
    webhook: WebhookReceiver, instance: dg.DagsterInstance
) -> None:
    """Where its worker process died: Dagster has no origin to launch it from."""
    run(instance, tags={"dagster/will_retry": "true"})
    assert Watch(instance).look() == "webhook: told 1"


def test_checks_are_told_by_their_severity(
    webhook: WebhookReceiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(instance)
    check(instance, dg.AssetCheckSeverity.WARN)
    check(instance, dg.AssetCheckSeverity.ERROR, passed=True)
    assert watch.look() == "nothing to tell"
    monkeypatch.setenv("LAPS_ALARM_LEVEL", "warn")
    check(instance, dg.AssetCheckSeverity.WARN)
    check(instance, dg.AssetCheckSeverity.ERROR)
    assert watch.look() == "webhook: told 2"
    text = webhook.taken[0]["text"]
    assert "1 x check segments rate failed" in text and "1 x check segments rate warns" in text
    assert "why: 2 a minute\nwhat to do: docs/alarms.md#rate" in text


def test_a_failure_without_a_word_is_told(webhook: WebhookReceiver, instance: dg.DagsterInstance) -> None:
    @dg.op
    def step() -> None:
        raise StoreError("")

    @dg.job
    def observe() -> None:
        step()

    observe.execute_in_process(instance=instance, raise_on_error=False)
    assert Watch(instance).look() == "webhook: told 1"
    assert "why: " in webhook.taken[0]["text"]


def test_nobody_is_told_without_a_receiver(instance: dg.DagsterInstance) -> None:
    run(instance)
    assert Watch(instance).look() == "nobody is told: no receiver is named"


def test_pauses_grow_while_there_is_more_and_are_short_again_after_a_quiet_time() -> None:
    told, now, pauses = Told(after_s=0.0), 1e9, []
    for _ in range(8):
        told.sent(now)
        pauses.append(told.pause_s)
        now = told.next_s + 60
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    told.sent(told.next_s + 2 * LONGEST_PAUSE_S)
    assert told.pause_s == FIRST_PAUSE_S
    assert json.loads(json.dumps(module.asdict(told)))["pause_s"] == FIRST_PAUSE_S


# --- the command line --------------------------------------------------------------------------------------------


def test_the_command_sends_one_to_each(webhook: WebhookReceiver, mail: MailReceiver, laps_command: Laps) -> None:
    assert laps_command("alarm", "test") == (0, "webhook: sent\nemail: sent\n", "")
    assert "a test of the alarms" in webhook.taken[0]["text"] and len(mail.taken) == 1
    webhook.status = 500
    code, out, err = laps_command("alarm", "test")
    assert code == 1 and out == "email: sent\n" and err.startswith("webhook: the webhook: answered 500")


def test_the_command_says_what_to_set(laps_command: Laps) -> None:
    code, _, err = laps_command("alarm", "test")
    assert code == 1 and "Set LAPS_ALARM_WEBHOOK or LAPS_ALARM_EMAIL" in err


def test_the_doctor_says_whether_anybody_is_told(webhook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = _alarms()
    assert (found.level, found.said) == ("ok", "webhook: failed runs, and checks with an error")
    monkeypatch.delenv("LAPS_ALARM_WEBHOOK")
    (found,) = _alarms()
    assert found.level == "note" and "nobody is told" in found.said
