"""The page of `capnet review` in a browser: what is chosen there is the table that ingest reads."""

from __future__ import annotations

import time
from pathlib import Path

from PIL import Image
from services.browser import Browser

from capnet.commands.review import page
from capnet.config import parse
from capnet.data.annotations.corrections import read_corrections


def test_what_is_chosen_is_in_the_saved_table(tmp_path: Path) -> None:
    names = ["plain.jpg", "a, b.jpg", 'q"uo</script>te.jpg', "carriage\rreturn.jpg"]
    for name in names[:2]:
        Image.new("RGB", (40, 30), "green").save(tmp_path / name)
    asked = [(name, f"fox <b>{n}</b>", "", "no", "0.900", "train") for n, name in enumerate(names)]
    before = {("old.jpg", "</script><script>alert(1)</script>"): "unknown"}
    (tmp_path / "review.html").write_text(page(asked, before, parse({"data": {"root": str(tmp_path)}}), tmp_path))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        window.open(f"file://{tmp_path}/review.html")
        text = window.wait("Is it there?", "0 of 4 looked at", "fox <b>1</b>?")
        assert text.count("This image cannot be read.") == 2
        groups = window.ask('[...document.querySelectorAll("fieldset")].map(one => one.ariaLabel)')
        shown = [name.replace("\r", "\n") for name in names]  # a page has one kind of line break
        assert groups == [f"fox <b>{n}</b> in {name}" for n, name in enumerate(shown)]
        window.click("li:nth-child(2) label", "^yes$")
        window.click("li:nth-child(3) label", "^no$")
        window.click("li:nth-child(4) label", "^no$")
        window.wait("3 of 4 looked at")
        leaves = 'dispatchEvent(new Event("beforeunload", {cancelable: true}))'  # without a question
        assert not window.ask(leaves)
        window.click("button", "Save")
        assert window.ask(leaves)
        end = time.monotonic() + 20
        while not (tmp_path / "saved" / "corrections.csv").is_file():
            assert time.monotonic() < end
            time.sleep(0.2)
        window.leave_and_return()
        window.wait("3 of 4 looked at")
        assert not window.ask(leaves)
    result, _, problems = read_corrections(tmp_path / "saved" / "corrections.csv")
    assert problems == []
    answers = {(names[1], "fox <b>1</b>"): "yes", (names[2], "fox <b>2</b>"): "no", (names[3], "fox <b>3</b>"): "no"}
    assert result == before | answers


def test_a_page_written_anew_has_no_answers_of_the_page_before(tmp_path: Path) -> None:
    params = parse({"data": {"root": str(tmp_path)}})
    fox, owl, deer = ((f"{name}.jpg", name, "", "no", "0.900", "train") for name in ("fox", "owl", "deer"))
    (tmp_path / "review.html").write_text(page([fox, owl], {}, params, tmp_path))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        window.open(f"file://{tmp_path}/review.html")
        window.wait("0 of 2 looked at")
        window.click("li:nth-child(1) label", "^yes$")
        window.click("li:nth-child(2) label", "^no$")
        window.wait("2 of 2 looked at")
        window.click("button", "Save")
        (tmp_path / "review.html").write_text(page([deer, owl], {("fox.jpg", "fox"): "yes"}, params, tmp_path))
        window.leave_and_return()
        window.wait("deer?", "1 of 2 looked at")
        checked = '[...document.querySelectorAll("input:checked")].map(one => one.closest("fieldset").ariaLabel)'
        assert window.ask(checked) == ["owl in owl.jpg"]
