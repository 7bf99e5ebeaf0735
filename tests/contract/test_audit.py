"""`make audit`: what it finds, what it lets pass, and that nobody's silence counts as an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from components.audit import AuditError, ask, bill, bill_of_image, command, drifted, licences, pinned, vulnerable
from components.build import DockerError

PINS = {"pillow": "13.0.0", "diskcache": "5.6.3"}


def result(*vulns: dict[str, Any], name: str = "pillow") -> dict[str, Any]:
    clean = [{"name": item, "version": version, "vulns": []} for item, version in PINS.items() if item != name]
    return {"dependencies": [*clean, {"name": name, "version": PINS[name], "vulns": list(vulns)}]}


def test_a_vulnerability_is_a_finding_with_the_version_that_mends_it() -> None:
    assert vulnerable(result(), PINS) == []
    (problem,) = vulnerable(result({"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["13.0.1"]}), PINS)
    assert (problem.what, problem.todo) == ("pillow 13.0.0 has CVE-2026-1 PYSEC-1", "raise it; fixed in: 13.0.1")


def test_only_what_was_judged_by_name_passes() -> None:
    known = {"id": "GHSA-x", "aliases": ["CVE-2025-69872"], "fix_versions": []}
    assert vulnerable(result(known, name="diskcache"), PINS) == []
    assert len(vulnerable(result(known | {"aliases": ["CVE-2026-2"]}, name="diskcache"), PINS)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"dependencies": [{"name": name, "skip_reason": "Dependency not found on PyPI"} for name in PINS]},
        {"dependencies": []},
        {},
    ],
)
def test_packages_that_nobody_looked_up_are_no_clean_ones(answer: dict[str, Any]) -> None:
    (problem,) = vulnerable(answer, PINS)
    assert "could not be asked" in problem.what
    assert "2 of 2 packages: diskcache, pillow" in problem.where


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    path.chmod(0o755)
    return folder


def test_a_database_that_does_not_answer_is_said(tmp_path: Path) -> None:
    tools = program(tmp_path, "pip-audit", "sys.exit('ConnectionError: Failed to resolve api.osv.dev')")
    (problem,) = ask(tools, PINS, "osv")
    assert "could not be asked" in problem.what
    assert "Failed to resolve" in problem.where
    with pytest.raises(AuditError, match="could not run"):
        ask(tmp_path / "elsewhere", PINS, "osv")
    program(tmp_path, "cyclonedx-py", "sys.exit('no')")
    with pytest.raises(AuditError, match="no list of packages: no"):
        bill(tools, tmp_path / "sbom.json")


def test_it_asks_about_every_pin(tmp_path: Path) -> None:
    answer = json.dumps(result())
    text = f"open({str(tmp_path / 'asked')!r}, 'w').write(open(sys.argv[2]).read())\nprint({answer!r})"
    assert ask(program(tmp_path, "pip-audit", text), PINS, "pypi") == []
    assert (tmp_path / "asked").read_text() == "diskcache==5.6.3\npillow==13.0.0\n"


def test_packages_of_an_image_are_listed_compared_with_the_pins_and_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions than the pinned ones, and packages of the base image, which nobody pinned."""
    program(tmp_path, "docker", "print('Pillow==12.0\\npip==26.1\\ncapnet==1.0\\ntorch==2.13.0+cpu')")
    write = (
        "lines = [] if sys.argv[1] == 'environment' else open(sys.argv[2]).read().split()\n"
        "items = [dict(zip(('name', 'version'), line.split('=='))) for line in lines]\n"
        "import json\n"
        "open(sys.argv[sys.argv.index('-o') + 1], 'w').write(json.dumps({'components': items}))"
    )
    program(tmp_path, "cyclonedx-py", write)
    program(tmp_path, "pip-audit", f"open({str(tmp_path / 'asked')!r}, 'w').write(open(sys.argv[2]).read())")
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "audit"
    options = ["--tools", str(tmp_path), "--out", str(out), "--image", "team/capnet-data:1"]
    with pytest.raises(AuditError) as caught:
        command.main(options, standalone_mode=False)
    drift, *_ = caught.value.problems
    assert (drift.what, drift.where) == ("pillow 12.0 is installed, 13.0.0 is pinned", "team/capnet-data:1")
    listed = json.loads((out / "sbom-team-capnet-data-1.json").read_text())["components"]
    assert [item["name"] for item in listed] == ["Pillow", "pip", "capnet", "torch"]
    asked = (tmp_path / "asked").read_text().split()
    assert {"pillow==12.0", "pip==26.1", "torch==2.13.0", "diskcache==5.6.3"} <= set(asked)
    assert not [line for line in asked if line.startswith("capnet")], "no database knows what is built here"


def test_an_image_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "docker", "sys.exit('No such image')")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DockerError, match="could not list the packages of capnet-data:1: No such image"):
        bill_of_image(tmp_path, "capnet-data:1", tmp_path / "sbom.json")


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        ({"expression": "Apache-2.0 OR GPL-2.0-or-later"}, True),
        ({"expression": "MPL-2.0 AND (Apache-2.0 OR MIT)"}, True),
        ({"license": {"name": "License :: OSI Approved :: BSD License"}}, True),
        ({"license": {"id": "GPL-3.0-only"}}, False),
        ({"expression": "MIT AND GPL-3.0-only"}, False),
        ({"license": {"id": "AGPL-3.0-or-later"}}, False),
        ({"license": {"id": "SSPL-1.0"}}, False),
        ({"license": {"id": "CC-BY-NC-4.0"}}, False),
        ({"license": {"name": "All rights reserved"}}, False),
        (None, False),
    ],
)
def test_licences(licence: dict[str, Any] | None, fine: bool) -> None:
    component = {"name": "x", "version": "1", "licenses": [licence] if licence else []}
    assert (licences({"components": [component]}) == []) == fine
    assert licences({"components": [component | {"name": "grandalf"}]}) == []


def test_ranges_are_asked_as_what_is_installed_and_drift_is_named(repository: Path) -> None:
    pins = pinned((repository / "constraints.txt").read_text(), {"torch": "2.13.0+cpu", "torchvision": "0.28.0"})
    assert (pins["torch"], pins["pillow"], pins["flufl-lock"]) == ("2.13.0", "13.0.0", "9.2.0")
    assert drifted({"torch": "2.13.0", "absent": "1"}, {"torch": "2.13.0+cpu"}) == []
    assert "pillow 12.0 is installed" in drifted({"pillow": "13.0.0"}, {"pillow": "12.0"})[0].what


FLOORS = {
    "pillow": "13", "transformers": "5.3", "torch": "2.11", "onnx": "1.21", "jinja2": "3.1.6", "requests": "2.32.4",
    "urllib3": "2.6",
}  # fmt: skip


def test_no_version_with_a_known_hole_and_none_that_was_never_run_may_be_installed(repository: Path) -> None:
    from tomllib import loads

    project = loads((repository / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    items = [Requirement(line) for line in lines if not line.startswith("capnet")]
    for name, floor in FLOORS.items():
        named = [item for item in items if item.name == name]
        assert named
        for item in named:
            lowest = min(Version(part.version) for part in item.specifier if part.operator == ">=")
            assert lowest >= Version(floor), str(item)
    assert not [item for item in items if item.name.startswith("kfp") and item.specifier.contains("2.18.0")]
    assert [item for item in items if item.name == "kfp" and item.specifier.contains("2.17.3")]


def test_a_workflow_runs_it_and_it_can_be_called(repository: Path) -> None:
    content = yaml.safe_load((repository / ".github" / "workflows" / "audit.yml").read_text())
    assert any(step.get("run") == "make audit" for step in content["jobs"]["audit"]["steps"])
    made = subprocess.run(["make", "-n", "audit"], cwd=repository, capture_output=True, text=True, check=True)
    assert "components.audit --tools" in made.stdout
