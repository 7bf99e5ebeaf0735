"""The git revision that images and pipeline versions are named by."""

from capnet.tracking import provenance


def git_revision() -> str:
    """As a registered model names it; unknown outside of git."""
    return provenance.git_revision() or "unknown"


def short(revision: str) -> str:
    """Twelve digits of the commit, and what stands behind it where files differ."""
    commit, hyphen, rest = revision.partition("-")
    return f"{commit[:12]}{hyphen}{rest}"
