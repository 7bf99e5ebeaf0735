"""Takes credentials out of every text that leaves the program: messages, log lines, tracebacks, tags and cards; and
what steers a terminal out of the texts that people see on one.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "***"
LEAST = 6  # characters of a variable's value that is hidden wherever it stands
LONG = 12  # from here on also within a longer word
NAMES = re.compile(r"(?i)passw|secret|token|api_?key|access_?key|private_?key|credential|connection_?string|_auth$")
PATHS = re.compile(r"(?i)(_file|_path|_dir|_uri|_url|_endpoint|_env|_name)$")  # a variable that says where, not what
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_SCHEME = r"(?i)([a-z][a-z0-9+.-]{0,30}:/{1,2})"  # bounded, or a long word takes minutes; a path has one slash less
_WORD = r"(?:pass(?:word|wd|phrase)|pwd|[\w-]*(?:secret|session|access|auth|api|refresh|id)[_-](?:key|token)"
_WORD += r"|[\w-]*secret[_-]access[_-]key|private[_-]token|client[_-]secret|account[_-]?key|sharedaccesskey)"
_QUERY = rf"(?:{_WORD}|secret|token|credential|key|auth|sig|signature"
_QUERY += r"|x-(?:amz|goog)-(?:signature|credential|security-token))"

RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # private keys, also those that are cut
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", HIDDEN),
        # addresses: a token as user, a password, one with slashes; a port is no password, and git@ is nobody's secret
        (rf"{_SCHEME}(?:[^\s/@:'\"]{{16,}}:[^\s/'\"<>]*|[^\s/@:'\"]+:x-oauth-basic)@", rf"\1{HIDDEN}@"),
        (rf"{_SCHEME}([^\s/@:'\"]*:)[^\s/'\"<>]*@", rf"\1\2{HIDDEN}@"),
        (rf"{_SCHEME}([^\s/@:'\"]*:)(?!\d+/)[^\s@'\"<>]*@", rf"\1\2{HIDDEN}@"),
        (r"(?i)((?:git\+)?https?:/{1,2})(?!git@)[^\s/@:'\"<>]+@", rf"\1{HIDDEN}@"),
        (rf"(?i)([?&;]{_QUERY}=)[^\s&;'\"<>]+", rf"\1{HIDDEN}"),
        (r"(?i)\b(basic|bearer)\s+[A-Za-z0-9._~+/=-]{8,}", rf"\1 {HIDDEN}"),
        (rf"(?i)(?<![\w-])({_WORD}[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;'\"]+)", rf"\1{HIDDEN}"),
        (r"\b([A-Z0-9_]*(?:TOKEN|PASSWORD|PASSWD|SECRET|_KEY)\s*=\s*)[^\s,;'\"]+", rf"\1{HIDDEN}"),
        # what is known by its beginning
        (
            r"\b(?:gh[opusr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|xox[abeprs]-[\w-]{10,})",
            HIDDEN,
        ),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", HIDDEN),
        (r"\b(?:sk-[\w-]{20,}|AIza[\w-]{30,}|pypi-[\w-]{20,}|npm_[A-Za-z0-9]{30,}|dapi[0-9a-f]{32})", HIDDEN),
        (r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?", HIDDEN),
    )
)


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with *** in the place of credentials.

    Args:
        text: what is about to be shown or stored.
        environment: variables whose names say that they hold a secret; their values are hidden wherever they stand.

    Returns:
        The same text where there is none. Passwords and tokens in addresses, signatures in their queries, headers,
        assignments such as ``password = x``, private keys and tokens of a known form are hidden.
    """
    values = (environment[name] for name in environment if _is_secret(name))
    known = _known(tuple(value for value in values if len(value) >= LEAST and not value.startswith("/")))
    if known is not None:
        text = known.sub(HIDDEN, text)
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text


def steers_nothing(text: str) -> str:
    """The text, in which what steers a terminal is written out.

    Args:
        text: of any origin.
    """
    return STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return bool(NAMES.search(name)) and not PATHS.search(name)


@lru_cache(maxsize=8)
def _known(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds these values, as they are and as addresses and reprs write them."""
    forms = {form for value in values for form in (value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1])}
    words = [
        re.escape(form) if len(form) >= LONG else rf"(?<!\w){re.escape(form)}(?!\w)"
        for form in sorted(forms, key=lambda form: (-len(form), form))
    ]
    return re.compile("|".join(words)) if words else None


def install() -> None:
    """From now on log records and tracebacks of this process are redacted, whoever writes them, and log records, which
    quote names of files, steer no terminal.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        try:
            made.msg, made.args = steers_nothing(redact(made.getMessage())), ()
        except (TypeError, ValueError, KeyError):  # a wrong format is logging's to report
            made.msg = redact(str(made.msg))
        if made.exc_info and made.exc_info[0] is not None:
            made.exc_text = redact("".join(traceback.format_exception(*made.exc_info))).rstrip("\n")
        return made

    record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
