"""Credentials are planted in the environment, in addresses and in files, and looked for in all that comes out."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e import warm
from unit.stores import clean_environment

from capnet.errors import ConfigError, Problem
from capnet.redaction import install, redact
from capnet.tasks import with_files
from pipelines.arguments import prediction_arguments, training_arguments
from pipelines.submit import with_root

Make = Callable[..., dict[str, Path]]
W = "Zq7Xk2Vw9Rt4Ls8Ny3Hb6Fd1"  # what no text has by chance

KINDS = {  # kind: what is written, and the part of it that nobody may read
    "password of an address": (f"git clone https://user:{W}@host.example/x.git failed", W),
    "password with an at sign": (f"https://user:p@{W}@host.example/x", W),
    "password with a slash": (f"https://user:pa/{W}@host.example/x", W),
    "password of a database": (f"postgresql+psycopg2://mlflow:{W}@database:5432/mlflow", W),
    "token as a user": (f"fatal: git+https://{W}@host.example/x.git not found", W),
    "token with x-oauth-basic": (f"https://{W}:x-oauth-basic@host.example/x", W),
    "signed address of S3": (f"https://s3.example/b/k?X-Amz-Expires=9&X-Amz-Signature={W}&x=1", W),
    "signed address of Azure": (f"https://a.example/c?sv=2026&sig={W}", W),
    "token in a query": (f"https://h.example/api?access_token={W}", W),
    "bearer header": (f"Authorization: Bearer {W}", W),
    "basic header": (f"authorization: basic {W}==", W),
    "password in a file": (f"[core]\npassword = {W}\n", W),
    "key of S3 in a file": (f"aws_secret_access_key={W}", W),
    "session token in JSON": (f'{{"session_token": "{W}"}}', W),
    "variable in a shell": (f"export HF_TOKEN={W}", W),
    "private key": (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{W}\n{W}\n-----END OPENSSH PRIVATE KEY-----", W),
    "private key that is cut": (f"-----BEGIN RSA PRIVATE KEY-----\n{W}", W),
    "token of GitHub": (f"remote: ghp_{W}AAAA said no", f"ghp_{W}"),
    "token of GitLab": (f"remote: glpat-{W} said no", f"glpat-{W}"),
    "token of Hugging Face": (f"401 with hf_{W}AAAAAA", f"hf_{W}"),
    "token of Slack": (f"xoxb-{W}", W),
    "key id of AWS": ("credentials AKIAZQ7XK2VW9RT4LS8N are refused", "AKIAZQ7XK2VW9RT4LS8N"),
    "JSON web token": (f"eyJhbGciOiJIUzI1NiJ9.{W}.{W}", W),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_credential_is_hidden_wherever_a_text_is_made(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    text, secret = KINDS[kind]
    assert secret in text
    assert secret not in redact(text, {})
    error = ConfigError(text, f"file {text}", f"remove {text}", problems=[Problem(text)])
    assert secret not in str(error)
    assert secret not in repr(error.problems)
    before = logging.getLogRecordFactory()
    try:
        install()
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("of.some.library").exception("it said %s", f"\x1b[2J {text}")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.text
    assert secret not in caplog.text
    assert "it said \\x1b[2J" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "https://host.example:8080/x@v2",
        "git+https://host.example/x@HEAD:data",
        "git@host.example:x.git",
        "ssh://git@host.example:22/x",
        "models:/capnet@champion",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to an account",
        "--s3-secret 'a.b-1': a name of a secret has letters",
        "secret capnet-s3 has no key AWS_ENDPOINT_URL",
        "label 'token' is not in classes.csv",
        "class secret: 12 pictures",
        f"sha256 {'0123456789abcdef' * 4}",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text, {"MLFLOW_TRACKING_PASSWORD": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "sha256"}) == text


def test_values_of_variables_are_hidden_in_every_spelling() -> None:
    environment = {
        "GIT_PASSWORD": "a+b/c d=1",
        "API_KEY": "short1",
        "SOME_PATH": "visible",
        "DB_PASSWORD_FILE": "visible",
    }
    for text in ("a+b/c d=1", "a%2Bb%2Fc%20d%3D1", "a%2Bb%2Fc+d%3D1", "(short1)"):
        assert redact(f"it is {text}!", environment).strip("!") == f"it is {'(***)' if '(' in text else '***'}"
    assert redact("ashort1b is a word, visible too", environment) == "ashort1b is a word, visible too"


def test_a_pipeline_takes_no_address_with_a_password() -> None:
    from capnet.config import parse

    with pytest.raises(ConfigError, match="holds a credential") as caught:
        with_files(parse({"data": {"root": f"git+https://user:{W}@host.example/x"}}))
    assert W not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "pictures", "name"),
    [
        ({"data": {"root": f"git+https://user:{W}@host.example/x"}}, "", "data.root"),
        ({}, f"git+https://user:{W}@host.example/x", "data.root"),
        ({"register": {"tracking_uri": f"postgresql://user:{W}@host.example/x"}}, "", "register.tracking_uri"),
    ],
)
def test_nor_do_predictions_whose_run_shows_its_parameters_too(
    settings: dict[str, dict[str, str]], pictures: str, name: str
) -> None:
    from capnet.config import parse

    params = with_root(parse(settings), pictures) if pictures else parse(settings)
    with pytest.raises(ConfigError, match=f"{name} = .*holds a credential") as caught:
        prediction_arguments(params, "", 1, "today")
    assert W not in str(caught.value)


def test_a_pipeline_takes_no_address_of_a_database_with_a_password() -> None:
    from capnet.config import parse

    with pytest.raises(ConfigError, match=r"register\.tracking_uri = .*holds a credential") as caught:
        training_arguments(parse({"register": {"tracking_uri": f"postgresql://user:{W}@host.example/x"}}), "today")
    assert W not in str(caught.value)


# ---------------------------------------------------------------- commands

ENVIRONMENT = {
    "GIT_PASSWORD": "envgit",
    "MLFLOW_TRACKING_PASSWORD": "envmlflow",
    "MLFLOW_TRACKING_TOKEN": "envtoken",
    "AWS_SECRET_ACCESS_KEY": "envaws",
    "AWS_SESSION_TOKEN": "envsession",
    "HF_TOKEN": "envhf",
    "KF_PIPELINES_TOKEN": "envkfp",
    "POSTGRES_PASSWORD": "envpostgres",
}
PLANTED = {name: f"{value}{W}" for name, value in ENVIRONMENT.items()}
COMMANDS = [
    ("ingest", "--set", f"data.root=git+http://user:{W}1@127.0.0.1:9/x.git"),
    ("ingest", "--set", f"data.root=git+http://{W}2@127.0.0.1:9/x.git"),
    ("ingest", "--set", f"data.root=ftp://user:{W}3@127.0.0.1:9/x"),
    ("ingest", "--set", f"data.rot=https://user:{W}4@127.0.0.1:9/x"),
    ("ingest", "--set", f"data.revision=[https://user:{W}5@127.0.0.1:9/x]"),
    ("--traceback", "ingest", "--set", f"data.root=git+http://user:{W}6@127.0.0.1:9/x.git"),
    ("ingest", f"--no-such-option=https://user:{W}7@127.0.0.1:9/x"),
    ("ingest", "--params", f"https://user:{W}8@127.0.0.1:9/params.yaml"),
    ("promote", "--set", f"register.tracking_uri=http://user:{W}9@127.0.0.1:9"),
    ("fetch", "--set", f"data.root=git+http://user:{W}a@127.0.0.1:9/x.git"),
    ("register",),
    ("promote", "--version", "1", "--reason", f"asked by https://user:{W}b@127.0.0.1:9/x"),
    ("promote", "--audit"),
    ("doctor",),
    ("predict", "--model", f"models:/https://user:{W}c@127.0.0.1:9/x@champion", "--input", "data", "--out", "x.csv"),
]

COLD = (COMMANDS[5], ("register",), ("doctor",))  # what libraries do while they are imported counts, too


def run(command: tuple[str, ...], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`capnet` with ``command``: as a user starts it, or by a process that has imported what is slow."""
    if sys.platform == "linux" and command not in COLD:
        return warm.run(list(command), folder, environment)
    return subprocess.run(
        [sys.executable, "-m", "capnet.cli", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_no_planted_credential_comes_out(tmp_path: Path, make_outputs: Make) -> None:
    project = tmp_path / "project"
    project.mkdir()
    make_outputs(project / "outputs")
    (project / "params.yaml").write_text("register:\n  name: capnet\n")
    (project / ".dvc").mkdir()
    hidden = f"[core]\n    remote = store\n['remote \"store\"']\n    url = http://user:{W}d@127.0.0.1:9/pictures\n"
    (project / ".dvc" / "config").write_text(hidden)
    (project / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    password = {W}e\n")
    (project / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    environment = clean_environment() | PLANTED | {"CAPNET_STATE": str(project / "state"), "GIT_TERMINAL_PROMPT": "0"}
    leaks = {}
    for command in COMMANDS:
        done = run(command, project, environment)
        leaks[" ".join(command)] = done.stdout + done.stderr
        assert done.returncode == 0 or done.stderr, command
    assert "clone" in leaks[" ".join(COMMANDS[0])]
    assert "Traceback" in leaks[" ".join(COMMANDS[5])]
    with sqlite3.connect(project / "mlflow.db") as store:
        leaks["the store"] = "\n".join(store.iterdump())
    assert "registered_models" in leaks["the store"]
    for path in project.rglob("*"):
        if path.is_file() and path.parent.name != ".dvc":
            leaks[str(path)] = path.read_bytes().decode(errors="replace")
    assert any("data_card.md" in name for name in leaks)
    assert {name: text[max(0, text.index(W) - 80) :][:200] for name, text in leaks.items() if W in text} == {}
