"""Files that bring a decoder down: the process that looks at them dies, nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from laps.errors import InputError, MediaError
from resources import recordings as register_module
from resources.apart import Apart
from resources.recordings import Recordings
from resources.store import Store
from tests.children import crash, end_by, miss_a_module, process_after, process_of, refuse
from tests.videos import write_video


@pytest.fixture(scope="module")
def apart() -> Apart:
    return Apart(limit_s=20.0)


def test_calls_are_answered_by_one_other_process(apart):
    first, second = apart.call("a", process_of), apart.call("b", process_of)
    assert first == second != os.getpid()


def test_deliberate_errors_come_back_whole(apart):
    with pytest.raises(InputError) as raised:
        apart.call("a", refuse, "no good")
    assert (raised.value.what, raised.value.where, raised.value.fix) == ("no good", "there", "Do this.")
    with pytest.raises(FileNotFoundError):
        apart.call("a", os.stat, "/no/such/file")
    with pytest.raises(ImportError, match="libavcodec"):  # which is no fault of the file
        apart.call("a", miss_a_module)


def test_it_can_be_ended_where_the_parent_takes_no_signals():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        child = Apart(limit_s=20.0)
        process = child.call("a", process_of)
        threading.Timer(0.5, os.kill, (process, signal.SIGTERM)).start()
        # Whoever stopped it did not mean the file, which is looked at once more.
        assert child.call("a", process_after, 1.0) != process
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, InputError), (signal.SIGKILL, MediaError)])
def test_a_process_that_is_ended_twice(apart, number, error):
    with pytest.raises(error, match=rf"^a\.mp4: the process that looked at it died \({number.name}\)"):
        apart.call("a.mp4", end_by, number)


def test_a_crash_names_the_file_and_the_next_call_is_answered(apart):
    before = apart.call("a", process_of)
    with pytest.raises(
        MediaError, match=r"^bad\.mp4: the process that looked at it died \(SIGSEGV\)\. .*copy it again"
    ):
        apart.call("bad.mp4", crash)
    assert apart.call("a", process_of) != before


def test_a_hang_ends_at_the_limit(apart):
    apart.call("a", process_of)
    impatient = Apart(limit_s=1.0)
    began = time.monotonic()
    with pytest.raises(MediaError, match=r"^slow\.mp4: no decoder came to an end with it in 1 s"):
        impatient.call("slow.mp4", time.sleep, 600)
    assert time.monotonic() - began < 10


def test_other_credentials_are_those_of_the_next_call(apart, monkeypatch):
    apart.call("a", process_of)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    assert apart.call("a", os.getenv, "AWS_ACCESS_KEY_ID") == "someone"


def look_and_crash(offered: dict) -> dict:
    if "deadly" in offered["uri"]:
        crash()
    return register_module._look(offered)


def test_a_file_that_kills_its_reader_is_quarantined_and_its_neighbours_are_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPS_FIRST_HOUR", "2026-01-01T00:00:00Z")
    folder = tmp_path / "landing" / "cam1"
    folder.mkdir(parents=True)
    for name in ("a_20261101T050000Z.mp4", "deadly_20261101T060000Z.mp4", "z_20261101T070000Z.mp4"):
        write_video(folder / name, seconds=2)
    register = Recordings(Store(str(tmp_path / "store")), str(tmp_path / "landing"))
    real_call = register_module.APART.call
    monkeypatch.setattr(
        register_module.APART, "call", lambda name, _, offered: real_call(name, look_and_crash, offered)
    )
    rows = {Path(row["uri"]).name[0]: row for row in register.scan()}
    assert [rows[name]["status"] for name in "adz"] == ["ok", "quarantined", "ok"]
    assert "died (SIGSEGV)" in rows["d"]["reason"]
    # Its hour still tells of it.
    assert rows["d"]["start_time"].isoformat() == "2026-11-01T06:00:00+00:00"


def test_a_decoder_that_hangs_ends_its_process_with_its_stack():
    program = (
        "import time\n"
        "from resources.time_limit import within\n"
        "def frames():\n"
        "    yield 1\n"
        "    time.sleep(600)\n"
        "for frame in within(frames(), 1.0): print(frame, flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == "1\n"
    assert "Timeout (0:00:01)!" in ended.stderr
    assert "in frames" in ended.stderr


def test_a_decoder_in_time_is_left_alone():
    program = (
        "import time\n"
        "from resources.time_limit import within\n"
        "assert list(within(iter(range(3)), 1.0)) == [0, 1, 2]\n"
        "time.sleep(1.5)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
