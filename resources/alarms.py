"""Where alarms go: a webhook, e-mail, or both, chosen by environment variables.

Address, user and password come from the environment and from nowhere else. A webhook's URL is a secret too (whoever has
it can post), so neither it nor a password appears in a message, an error or a log. An error here is an AlarmError that
says what the receiver answered; whoever sends decides when to try again.
"""

from __future__ import annotations

import json
import os
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from laps.errors import AlarmError, InputError

TIMEOUT_S = 15.0
_SUBJECT_CHARACTERS = 120

WEBHOOK = "LAPS_ALARM_WEBHOOK"
EMAIL = "LAPS_ALARM_EMAIL"
SMTP = "LAPS_ALARM_SMTP"
SMTP_USER = "LAPS_ALARM_SMTP_USER"
SMTP_PASSWORD = "LAPS_ALARM_SMTP_PASSWORD"
SMTP_SECURITY = "LAPS_ALARM_SMTP_SECURITY"
SENDER = "LAPS_ALARM_FROM"
LEVEL = "LAPS_ALARM_LEVEL"
UI_URL = "LAPS_UI_URL"

SECURITIES = ("starttls", "tls", "none")
LEVELS = ("error", "warn")


@dataclass(frozen=True)
class Message:
    """An alarm as a receiver gets it.

    Attributes:
        subject: what is wrong, in one line.
        text: the whole message in plain text, its first line the subject.
        fields: the same for programs, JSON-ready.
    """

    subject: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


class Channel(Protocol):
    """A receiver of alarms."""

    @property
    def name(self) -> str:
        """``webhook`` or ``email``."""
        ...

    def send(self, message: Message) -> tuple[str, ...]:
        """Hand a message over; returns for whom it was refused, and AlarmError when it was not taken for anybody."""
        ...


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows none: a POST would go on as a GET without the alarm, and its answer would look like a success."""

    def http_error_302(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any) -> None:
        """Leave it to the handler that makes an error of it; Location is not even read."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@dataclass(frozen=True)
class Webhook:
    """A URL that takes a JSON object by POST: ``text`` as Slack and its like want it, and the fields beside it."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        return "webhook"

    def send(self, message: Message) -> tuple[str, ...]:
        body = json.dumps({"text": message.text, **message.fields}).encode()
        request = urllib.request.Request(
            self.url, body, {"Content-Type": "application/json; charset=utf-8", "User-Agent": "laps"}
        )
        try:
            with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            if 300 <= error.code < 400:
                # Where to is not said: that URL is a secret too.
                raise AlarmError(
                    f"redirects ({error.code}), and an alarm does not follow",
                    where="the webhook",
                    fix=f"Give the final https:// URL in {WEBHOOK}; `laps alarm test` sends one.",
                ) from None
            raise AlarmError(
                f"answered {error.code} {error.reason}", where="the webhook", fix=_look_at(WEBHOOK)
            ) from None
        except UnicodeError:
            # Without the cause: its text holds a part of the URL.
            raise AlarmError(
                "cannot be asked: its URL is not plain ASCII, or a part of its host's name is too long",
                where="the webhook",
                fix=_look_at(WEBHOOK),
            ) from None
        except (OSError, HTTPException) as error:
            # Without the cause: its text may hold the URL.
            said = getattr(error, "reason", None) or error
            said = getattr(said, "strerror", None) or type(said).__name__
            raise AlarmError(f"could not be reached ({said})", where="the webhook", fix=_look_at(WEBHOOK)) from None
        return ()


@dataclass(frozen=True)
class Email:
    """Addresses, and the server that takes messages for them.

    Attributes:
        to: addresses.
        host, port: the SMTP server.
        security: ``starttls``, ``tls`` from the first byte, or ``none``.
        sender: address that messages come from.
        user, password: of the server; empty where it asks for none.
    """

    to: tuple[str, ...]
    host: str
    port: int
    security: str
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        return "email"

    def send(self, message: Message) -> tuple[str, ...]:
        mail = EmailMessage()
        mail["Subject"] = message.subject[:_SUBJECT_CHARACTERS]
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        # Names of files may hold bytes that are no text.
        mail.set_content(message.text.encode(errors="replace").decode())
        try:
            with self._connected() as server:
                if self.security == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if self.user:
                    server.login(self.user, self.password)
                refused = server.send_message(mail)
        except (OSError, UnicodeError, smtplib.SMTPException) as error:
            raise AlarmError(
                f"could not hand over the message ({_in_words(error)})",
                where=f"the mail server {self.host}:{self.port}",
                fix=_look_at(SMTP, SMTP_USER, SMTP_PASSWORD, SMTP_SECURITY),
            ) from None
        return tuple(f"{address} ({_answer(*answer)})" for address, answer in refused.items())

    def _connected(self) -> smtplib.SMTP:
        if self.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)


def channels() -> list[Channel]:
    """The receivers that the environment names; InputError where what it says cannot be used."""
    found: list[Channel] = []
    if url := os.environ.get(WEBHOOK):
        if not _is_http(url):
            # Not shown: it may hold a secret.
            raise InputError("is no http:// or https:// URL", where=WEBHOOK, fix="Give the receiver's whole URL.")
        found.append(Webhook(url))
    if addresses := os.environ.get(EMAIL):
        found.append(_email(addresses))
    return found


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may show the URL
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def level() -> str:
    """Which failed checks are told: ``error``, or ``warn`` for all (``LAPS_ALARM_LEVEL``)."""
    chosen = os.environ.get(LEVEL) or "error"
    if chosen not in LEVELS:
        raise InputError(f"{chosen!r} is no level", where=LEVEL, fix=f"Give one of {', '.join(LEVELS)}.")
    return chosen


def _email(addresses: str) -> Email:
    to = tuple(part.strip() for part in addresses.split(",") if part.strip())
    wrong = [address for address in to if "@" not in address or any(mark in address for mark in " \r\n<>")]
    if wrong or not to:
        raise InputError(
            f"{', '.join(wrong) or 'nothing'} is no address", where=EMAIL, fix="Give addresses, separated by commas."
        )
    user, password = os.environ.get(SMTP_USER, ""), os.environ.get(SMTP_PASSWORD, "")
    security = os.environ.get(SMTP_SECURITY) or ("starttls" if user else "none")
    if security not in SECURITIES:
        raise InputError(f"{security!r} is unknown", where=SMTP_SECURITY, fix=f"Give one of {', '.join(SECURITIES)}.")
    if user and security == "none":
        raise InputError(
            "a password would be sent in the clear", where=SMTP_SECURITY, fix="Give starttls or tls, or no user."
        )
    host, _, port = (os.environ.get(SMTP) or "localhost").partition(":")
    if port and not port.isdigit():
        raise InputError(f"{port!r} is no port", where=SMTP, fix="Write it like mail.example.org:587.")
    usual = {"starttls": 587, "tls": 465, "none": 25}[security]
    sender = os.environ.get(SENDER) or f"laps@{socket.getfqdn()}"
    return Email(to, host, int(port or usual), security, sender, user, password)


def _look_at(*names: str) -> str:
    return f"Look at {', '.join(names)}; `laps alarm test` sends one."


def _in_words(error: Exception) -> str:
    """What a mail server or the network said, without what was sent to it."""
    if isinstance(error, UnicodeError):
        # Its text shows the character, most likely one of the password.
        return "user or password are not plain ASCII"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"it refused user or password, {error.smtp_code}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"it refused {', '.join(error.recipients)}"
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    return (getattr(error, "strerror", None) or type(error).__name__) if isinstance(error, OSError) else str(error)


def _answer(code: int, said: bytes | str) -> str:
    return f"{code} {said.decode(errors='replace') if isinstance(said, bytes) else said}"
