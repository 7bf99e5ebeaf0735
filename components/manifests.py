"""`kubectl kustomize deploy/... | python -m components.manifests [LOCK]`: the same with the images of the lock."""

import re
import sys
from dataclasses import asdict
from pathlib import Path

from capnet.errors import CapnetError
from components.images import LOCK, Images, read_lock

EXAMPLE = "registry.example.com/team"  # stands in the manifests where nobody has written another


def with_locked_images(text: str, images: Images) -> str:
    """``text`` where registry.example.com/team/capnet-NAME:TAG is the locked image NAME; what a user wrote stays."""
    known = asdict(images)

    def locked(match: re.Match[str]) -> str:
        return str(known.get(match[1], match[0]))

    return re.sub(rf"{re.escape(EXAMPLE)}/capnet-([a-z]+)(?:[:@][\w.:-]+)?", locked, text)


def main() -> None:
    text = sys.stdin.read()
    try:
        if EXAMPLE in text:  # nothing else takes the lock's images
            text = with_locked_images(text, read_lock(Path(sys.argv[1]) if sys.argv[1:] else LOCK, allow_tags=True))
    except CapnetError as error:
        sys.exit(f"{error.heading}\n{error}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
