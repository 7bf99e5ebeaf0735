"""What can go wrong between this machine and a pipeline server."""

from __future__ import annotations

from capnet.errors import CapnetError


class RunFailed(CapnetError):
    """A run ended, and not with success (exit code 6)."""

    exit_code = 6
    title = "run"


class ServerError(CapnetError):
    """The pipeline server cannot be reached, does not know us, or refuses (exit code 7)."""

    exit_code = 7
    title = "pipeline server"


class NotThere(ServerError):
    """The pipeline server itself says that there is no such thing."""
