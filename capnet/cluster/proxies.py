"""Which proxy leads to a server: the clients of Kubernetes and of Kubeflow Pipelines do not look it up."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def kubectl_proxy(files: str, host: str) -> str:
    """The proxy by which kubectl reaches a cluster, which the client does not look up; "" for none.

    Args:
        files: of kubectl's configuration, as in KUBECONFIG; `proxy-url` of the cluster comes before the environment.
        host: address of the cluster.
    """
    from kubernetes.config.kube_config import KubeConfigMerger

    settings = KubeConfigMerger(files).config
    cluster = settings["contexts"].get_with_name(settings["current-context"])["context"]["cluster"]
    named = settings["clusters"].get_with_name(cluster)["cluster"].safe_get("proxy-url")
    return _with_scheme(str(named)) if named else usual_proxy(host)


def usual_proxy(address: str) -> str:
    """The proxy that the environment names for an address; "" for none. This machine is reached without one, as by
    kubectl.
    """
    parts = urlsplit(address)
    found, name = getproxies().get(parts.scheme, ""), parts.hostname or ""
    if not found or name in ("localhost", "::1") or name.startswith("127.") or proxy_bypass(parts.netloc):
        return ""
    return _with_scheme(found)


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
