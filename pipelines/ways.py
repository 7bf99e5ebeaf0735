"""Three ways to a pipeline server: from inside the cluster, through a port-forward, with a token."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead, InvalidURL
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from capnet.cluster.names import NEWER_KFP, kfp_is_new_enough, pod_namespace
from capnet.cluster.proxies import usual_proxy
from capnet.errors import ConfigError
from pipelines.errors import NotThere, ServerError

Kind = Literal["auto", "in-cluster", "port-forward", "token"]
HEALTH = "/apis/v2beta1/healthz"
FORWARDED = "http://localhost:8080"
TOKEN = "KF_PIPELINES_TOKEN"
POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # projected for the audience pipelines.kubeflow.org
SECONDS = 15.0  # longest wait for one answer
CORRECT = f"correct --host: the address under which {HEALTH} answers"
DOCUMENT = "docs/on-kubernetes.md, Three ways in"
UNTRUSTED = "the server's certificate is not trusted"
TRUST = "name the file with the certificate of its authority: SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
ADVICE = {
    "in-cluster": "run it in a pod whose service account may start runs, or name the server with --host",
    "port-forward": "start it: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80",
    "token": (
        f"get a new token ({DOCUMENT}); name its file with --token-file, the server with --host, your profile with"
        " --namespace"
    ),
}


@dataclass(frozen=True)
class Way:
    """How the server is reached; ``token`` is never shown. ``token_file``: where it was read from, and where a renewed
    one is written later; "" for none.
    """

    kind: str
    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_file: str = field(default="", compare=False)

    @property
    def proxy(self) -> str:
        """The proxy that the environment names for the server, which kfp.Client does not look up; "" for none."""
        return "" if self.kind == "in-cluster" else usual_proxy(self.host)

    def __str__(self) -> str:
        return f"way {self.kind}, {self.host}" + (f", namespace {self.namespace}" if self.namespace else "")

    def fail(self, why: str, todo: str = "", kind: type[ServerError] = ServerError) -> ServerError:
        return kind(why, str(self), todo or ADVICE[self.kind])


def choose(kind: Kind, host: str, namespace: str, token_file: str, environment: Mapping[str, str] = os.environ) -> Way:
    """The way that was named, or the one that fits: a token, a pod's own, a port-forward.

    Raises ConfigError where a way lacks what it needs.
    """
    if host and not host.startswith(("http://", "https://")):
        raise ConfigError(
            f"the server's address {host!r} has no scheme",
            "--host, KF_PIPELINES_ENDPOINT",
            f"write it like {FORWARDED}",
        )
    token = _token(token_file, environment)
    inside = "KUBERNETES_SERVICE_HOST" in environment
    if kind == "auto" and token:
        kind = "token"
    elif kind == "auto":
        kind = "in-cluster" if inside and not host else "port-forward"
    if token_file and kind != "token":
        raise ConfigError(f"the way {kind} reads no token file", "--way, --token-file", "leave out one of the two")
    if kind == "token":
        if not token:
            raise ConfigError(
                "the way token needs a token", f"--token-file, {TOKEN}", "name a file with it, or set the variable"
            )
        if not host:
            raise ConfigError(
                "the way token needs the server's address",
                "--host",
                "write --host https://kubeflow.example.com/pipeline",
            )
        return Way("token", host.rstrip("/"), namespace, token, token_file)
    if kind == "port-forward":
        return Way("port-forward", (host or FORWARDED).rstrip("/"), namespace)
    paths = (environment.get("KF_PIPELINES_SA_TOKEN_PATH", ""), POD_TOKEN)
    mounted = next((Path(path) for path in paths if path and Path(path).is_file()), None)
    address = (host or "http://ml-pipeline.kubeflow:8888").rstrip("/")
    token = mounted.read_text().strip() if mounted else ""
    return Way("in-cluster", address, namespace or pod_namespace(), token, str(mounted or ""))


def _token(token_file: str, environment: Mapping[str, str]) -> str:
    token = environment.get(TOKEN, "").strip()
    try:
        if token_file:
            token = Path(token_file).read_text(errors="replace").strip()
    except OSError as error:
        raise ConfigError(
            f"the token file cannot be read: {error.strerror}", token_file, "correct --token-file"
        ) from None
    if token_file and not token:
        raise ConfigError("the token file is empty", token_file, "write the token into it")
    if not all("!" <= letter <= "~" for letter in token):
        todo = "give it the token alone, as plain text without a byte order mark"
        raise ConfigError("a token has no blanks, line breaks or letters beyond ASCII", token_file or TOKEN, todo)
    return token


def authorities() -> str:
    """The file with certificates of authorities that the environment names, or Python's own; "" for none."""
    named = Path(os.environ.get("REQUESTS_CA_BUNDLE", ""))
    return str(named) if named.is_file() else ssl.get_default_verify_paths().cafile or ""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A login page is no answer."""
        return


def check_server(way: Way, seconds: float = SECONDS) -> None:
    """Ask the server whether it is there and lets us in; raises ServerError naming the way that failed and why, also
    for a server that is too old, and for one with profiles where none is named.
    """
    try:
        trusted = ssl.create_default_context(cafile=authorities() or None)
    except OSError as error:
        raise way.fail(f"the file of certificates cannot be read: {error}", TRUST) from None
    try:
        proxies = dict.fromkeys(("http", "https"), way.proxy) if way.proxy else {}
        opener = build_opener(_NoRedirects, ProxyHandler(proxies), HTTPSHandler(context=trusted))
        request = Request(way.host + HEALTH, headers={"Authorization": f"Bearer {way.token}"} if way.token else {})
    except ValueError as error:
        raise way.fail(f"this is no address: {error}", CORRECT) from None
    try:
        with opener.open(request, timeout=seconds) as answer:
            health = json.loads(answer.read())
            tag, profiles = str(health.get("tag_name", "")), bool(health.get("multi_user"))
    except HTTPError as error:
        raise refused(way, error.code) from None
    except (TimeoutError, URLError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise way.fail(f"the server did not answer within {seconds:.0f} s") from None
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise way.fail(f"{UNTRUSTED}: {reason.verify_message}", TRUST) from None
        raise way.fail(f"the server cannot be reached: {reason}") from None
    except (IncompleteRead, OSError) as error:
        raise way.fail(f"the connection broke: {error}", CORRECT) from None
    except InvalidURL as error:
        raise way.fail(f"this is no address: {error}", CORRECT) from None
    except (AttributeError, HTTPException, ValueError):
        raise way.fail("something else than Kubeflow Pipelines answers there", CORRECT) from None
    if kfp_is_new_enough(tag) is False:
        raise way.fail(f"Kubeflow Pipelines {tag} does not know what our pipelines ask for", NEWER_KFP)
    if profiles and not way.namespace:  # without one an administrator's pipeline would become everybody's
        raise way.fail("this Kubeflow has profiles, and runs nothing outside of them", "name your profile: --namespace")


def refused(way: Way, status: int, message: str = "") -> ServerError:
    """What a status of the server means on this way."""
    give = f"give a token ({DOCUMENT}): --token-file FILE or the variable {TOKEN}"
    if status in (301, 302, 303, 307, 308):
        return way.fail("the server sends to a login page", give)
    role = "ask for a role that may create pipelines and runs in this namespace, or name yours with --namespace"
    why, todo = {
        401: ("the server does not know us (401)", "" if way.token else give),
        403: ("the server does not allow it (403)", role),
        404: ("there is no such thing (404)", f"{CORRECT}; KFP 2.16 or newer"),
    }.get(status, (f"the server answers {status}", "see the log of the deployment ml-pipeline"))
    if "unknown field" in message:
        todo = f"the server is too old: {NEWER_KFP}"
    # a gateway that finds no server says so in other words, or in none
    kind = NotThere if status == 404 and "not found" in message else ServerError
    return way.fail(why + (f": {message}" if message else ""), todo, kind)
