"""The git revision that images and pipeline versions are named by."""

import subprocess


def git_revision() -> str:
    """The commit that is checked out, with -changed where files differ from it; unknown outside of git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def short(revision: str) -> str:
    """Twelve digits of the commit, and whether files differ from it."""
    commit, _, changed = revision.partition("-")
    return commit[:12] + ("-changed" if changed else "")
