"""URLs that people give: credentials do not belong into them.

A URL is stored with recordings, printed by every error and seen by whoever lists processes. What it holds of a key is
refused before anything else looks at it, and the message does not repeat it.
"""

from __future__ import annotations

import re

from laps.errors import InputError

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
# Of a URL that is signed in advance (AWS's newer and older form).
_SIGNATURE = re.compile(r"[?&](X-Amz-|AWSAccessKeyId=|Signature=)", re.IGNORECASE)


def has_credentials(text: str) -> bool:
    """Whether a text is a URL with a user, a password or a signature in it; a path is not."""
    found = _URL.fullmatch(text)
    if found is None:
        return False
    host, _, _ = found["rest"].partition("/")
    # A secret key may hold slashes: what stands before the first of them then ends without an "@". A server has a
    # port, a bucket has none, and an access point's name has colons of its own.
    _, colon, port = host.partition(":")
    has_port = found["scheme"].lower() in ("http", "https") and port.isdigit()
    divided = bool(colon) and not has_port and not host.startswith("arn:")
    return "@" in host or divided or _SIGNATURE.search(found["rest"]) is not None


def refuse_credentials(url: str) -> None:
    """Raise InputError, which does not show the URL, where one holds credentials."""
    if has_credentials(url):
        # Neither the URL nor a part of it: what stands there may be a password.
        raise InputError(
            "a URL holds credentials (a user, a password or a signature), and they do not belong into it",
            fix="Give s3://bucket/path and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        )
