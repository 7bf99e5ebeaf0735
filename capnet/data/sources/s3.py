"""S3 through boto3: a client with its credentials, what its refusals mean, and a short question to a bucket. The only
module that imports boto3.

Address, region and credentials come from where boto3 and DVC look for them: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ~/.aws, a web identity or an instance role.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from capnet.data.sources.remote import split_uri
from capnet.errors import CapnetError, DataError, Problem

ATTEMPTS = 5  # for one request, and for one object: there counted anew whenever more of it is here than ever
PATIENCE = {"connect_timeout": 10, "read_timeout": 60}  # seconds
SAYS = {
    "env": "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "shared-credentials-file": "the file ~/.aws/credentials",
    "config-file": "the file ~/.aws/config",
    "assume-role": "a role named in ~/.aws/config",
    "assume-role-with-web-identity": "a web identity token (a Kubernetes service account)",
    "sso": "a single sign-on session",
    "container-role": "the container's role",
    "iam-role": "the machine's role",
    "explicit": "the DVC remote's own settings",
}

REFUSALS = (  # error codes, what they say, what to do
    (("ExpiredToken",), "S3 refuses the credentials ({})", "renew key, secret and AWS_SESSION_TOKEN, or log in again"),
    (("RequestTimeTooSkewed",), "S3 refuses the time of this machine ({})", "set its clock, or that of the server"),
    (
        ("SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "401"),
        "S3 refuses the credentials ({})",
        "correct key, secret and AWS_SESSION_TOKEN (lasting keys have none), or choose another AWS_PROFILE",
    ),
    (
        ("AccessDenied", "403", "Forbidden", "AllAccessDisabled"),
        "S3 does not allow it ({})",
        "ask for s3:ListBucket and s3:GetObject on this bucket, or use other credentials",
    ),
    (("NoSuchBucket", "404"), "there is no such bucket", "correct the bucket's name; is this the right server?"),
    (("PreconditionFailed",), "the object was replaced while it was fetched", "run the same command again"),
)


@dataclass(frozen=True)
class S3Address:
    """How to reach a bucket beyond what the environment says; None leaves it to the environment."""

    endpoint: str | None = None
    profile: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    anonymous: bool = False


def connect(address: S3Address, connections: int, quick: bool = False) -> tuple[Any, str]:
    """An S3 client, and where its credentials were found; ``quick`` gives up after seconds.

    Raises DataError where there are no credentials, or no such profile.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    times = {"connect_timeout": 2, "read_timeout": 2} if quick else PATIENCE
    own_attempts = bool(os.environ.get("AWS_MAX_ATTEMPTS")) and not quick
    attempts = {} if own_attempts else {"total_max_attempts": 1 if quick else ATTEMPTS}
    config = Config(
        retries={"mode": "standard", **attempts},
        max_pool_connections=connections,
        signature_version=UNSIGNED if address.anonymous else None,
        **times,
    )
    try:
        session = boto3.session.Session(
            profile_name=address.profile,
            region_name=address.region,
            aws_access_key_id=address.access_key,
            aws_secret_access_key=address.secret_key,
            aws_session_token=address.session_token,
        )
        client = session.client("s3", endpoint_url=address.endpoint, config=config)
        credentials = None if address.anonymous else session.get_credentials()
    except (BotoCoreError, ValueError) as error:
        todo = "look at AWS_PROFILE, AWS_ENDPOINT_URL, other variables AWS_* and ~/.aws/config"
        raise DataError(f"S3 cannot be set up: {error}", "AWS settings", todo) from None
    if address.anonymous:
        return client, "none: data.anonymous is true"
    if credentials is None:
        todo = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; or data.anonymous for a public bucket"
        raise DataError("no credentials for S3 were found", "environment, ~/.aws, container and machine roles", todo)
    where = SAYS.get(str(credentials.method), str(credentials.method))
    return client, f"{where}, profile {session.profile_name}" if "file" in str(credentials.method) else where


@cache
def faults() -> tuple[type[Exception], ...]:
    """What botocore raises for an answer that it cannot use: it parses numbers, times and checksums as they come, and
    follows redirects.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, HTTPError, ValueError, RecursionError


def explain(error: Exception, what: str, client: Any, credentials: str) -> Problem:
    """What S3 answered, in three parts; ``what`` is the address that was asked for, ``credentials`` where they were
    found, as ``connect`` says.
    """
    where = f"{what} at {client.meta.endpoint_url}, credentials: {credentials}"
    answer: Mapping[str, Any] = getattr(error, "response", {}) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    for codes, says, todo in REFUSALS:
        if code in codes:
            return Problem(says.format(code), where, todo)
    if code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "its own")
        return Problem("the bucket is in another region", where, f"set AWS_REGION={region}")
    if code:
        return Problem(f"S3 answers {code}: {answer['Error'].get('Message', '')}", where, "see its log, or try again")
    from botocore.exceptions import BotoCoreError

    what = "S3 does not answer: " if isinstance(error, BotoCoreError) else "the answer of S3 cannot be read: "
    return Problem(what + " ".join(str(error).split()), where, "is the server running, and AWS_ENDPOINT_URL right?")


@dataclass(frozen=True)
class Answer:
    """What a bucket said: the server's address, where credentials were found, is an object there, and what is wrong."""

    endpoint: str = ""
    credentials: str = ""
    has_object: bool = False
    problem: Problem | None = None


def probe(address: S3Address, uri: str, path: str = "") -> Answer:
    """Ask for one name below ``uri``, and for the object ``path`` below it; an answer takes seconds at most."""
    try:
        bucket, prefix = split_uri(uri)
        client, credentials = connect(address, 1, quick=True)
    except CapnetError as error:
        return Answer(problem=error.problems[0])
    try:
        listing = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{path}" if prefix else path, MaxKeys=1)
    except faults() as error:
        return Answer(client.meta.endpoint_url, credentials, False, explain(error, uri, client, credentials))
    return Answer(client.meta.endpoint_url, credentials, listing.get("KeyCount", len(listing.get("Contents", []))) > 0)
