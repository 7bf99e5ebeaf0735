"""The proxy of a server as the environment names it: the clients of Kubernetes and Kubeflow Pipelines look none up."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def usual_proxy(address: str) -> str:
    """The proxy that the environment names for an address; "" for none. This machine is reached without one, as by
    kubectl.
    """
    parts = urlsplit(address)
    found, name = getproxies().get(parts.scheme, ""), parts.hostname or ""
    if not found or name in ("localhost", "::1") or name.startswith("127.") or proxy_bypass(parts.netloc):
        return ""
    return with_scheme(found)


def with_scheme(proxy: str) -> str:
    """A proxy as an address; without a scheme it is one of http."""
    return proxy if "://" in proxy else f"http://{proxy}"
