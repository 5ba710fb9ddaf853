"""URLs that hold credentials are refused wherever a person gives one, and no message shows what they held."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from laps.errors import InputError
from resources.configured import RecordingsResource, StoreResource
from resources.recordings import Recordings, file_info, open_uri
from resources.store import Store, file_system
from resources.urls import has_credentials, refuse_credentials
from tests.conftest import Laps
from tests.test_cli import run

__all__ = ["run"]

HIDDEN = "aB3/hidden+Secret"
URL = f"s3://AKIAHIDDEN:{HIDDEN}@bucket/prefix"
SIGNED = "https://bucket.s3.amazonaws.com/a.mp4?X-Amz-Credential=AKIAHIDDEN&X-Amz-Signature=hidden"
# As in keys: a secret key of AWS is made of these.
SECRETS = st.text(string.ascii_letters + string.digits + "/+=", min_size=1, max_size=40)
KEYS = st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=20)


@given(KEYS, SECRETS, st.sampled_from(["s3", "S3", "https"]))
def test_keys_in_a_url_are_found_whatever_they_are_made_of(key: str, secret: str, scheme: str) -> None:
    # What a number and a slash follow is a port, of a server.
    assume(scheme != "https" or not secret.partition("/")[0].isdigit())
    assert has_credentials(f"{scheme}://{key}:{secret}@bucket/prefix")
    with pytest.raises(InputError) as caught:
        refuse_credentials(f"{scheme}://{key}:{'hidden' + secret}@bucket/prefix")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/prefix",
        "s3://bucket/a@b:c/d",
        "https://host:9000/a.mp4?version=3",
        "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/name/prefix",
        "/media/key:secret@home/a.mp4",
        "select 's3://a:b@c/d'",
        "",
    ],
)
def test_what_holds_none_is_admitted(text: str) -> None:
    assert not has_credentials(text)


@pytest.mark.parametrize("url", [URL, SIGNED])
@pytest.mark.parametrize(
    "use",
    [
        lambda url: Store(url),
        lambda url: StoreResource(root=url).open(),
        lambda url: Recordings(Store("/nowhere"), url),
        lambda url: RecordingsResource(landing=url).open(Store("/nowhere")),
        file_system,
        file_info,
        open_uri,
    ],
)
def test_every_door_refuses_them(use: Callable[[str], object], url: str) -> None:
    with pytest.raises(InputError, match=r"a URL holds credentials.*AWS_PROFILE") as caught:
        use(url)
    assert "hidden" not in repr(caught.value).lower()


@pytest.mark.parametrize(
    "command",
    [
        ["ingest", URL, "--camera", "cam1"],
        ["ingest", SIGNED, "--camera", "cam1"],
        ["ingest", "--landing", URL],
        ["ingest", f"--landing={URL}"],
        ["--store", URL, "status"],
        ["demo", "--video", URL],
        ["demo", "--s3", URL],
        ["export", "--out", URL],
        ["report", "--out", URL],
        ["sql", "select 1", "--out", URL],
        ["sql", "--script", URL],
        ["train", URL, "--out", "model"],
        [URL],
    ],
    ids=lambda command: " ".join(command).replace(URL, "URL").replace(SIGNED, "SIGNED"),
)
def test_no_command_echoes_them(run: Laps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command)
    assert (code, out) == (1, "")
    assert err.startswith("laps: a URL holds credentials") and "hidden" not in err.lower()
    assert list(tmp_path.iterdir()) == []  # pathlib would make folders of the URL's parts


@pytest.mark.parametrize("name", ["LAPS_STORE", "LAPS_LANDING"])
def test_variables_that_hold_them_are_refused(run: Laps, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, URL)
    code, out, err = run("ingest")
    assert (code, out) == (1, "")
    assert "a URL holds credentials" in err and "hidden" not in err.lower()


@pytest.mark.parametrize("command", [["export"], ["report"], ["sql", "select 1"]], ids=lambda command: command[0])
def test_a_url_is_no_place_for_what_is_written_locally(
    run: Laps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Store().write_bytes("settings.json", b"{}")
    code, _, err = run(*command, "--out", "s3://bucket/out")
    assert code == 1
    assert "s3://bucket/out: is a URL, and what this command writes is a local file or folder" in err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
