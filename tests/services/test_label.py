"""The page of `capnet label` in a browser: what is ticked there is the table that ingest reads."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

from services.browser import Browser

from capnet.commands.label_page import page
from capnet.config import parse
from capnet.data.annotations.added import add_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations

LEAVES = 'dispatchEvent(new Event("beforeunload", {cancelable: true}))'  # without a question
CLASSES = ["fox", "owl, grey", 'q"uo</script>te', "deer", "f\u00e9lin"]


def test_what_is_ticked_is_in_the_saved_table(tmp_path: Path) -> None:
    labels = [(CLASSES[0], "0.93", True), (CLASSES[1], "0.20", False), (CLASSES[2], "0.10", False)]
    paths = ["new/plain.jpg", 'new/a, "b".jpg', "new/<script>\r.jpg", "new/open.jpg"]
    more = {"labels": labels, "source": "", "link": "", "split": "train", "group": "site, 4"}
    items = [{"path": path} | more for path in paths]
    params = parse({"data": {"format": "csv"}})
    (tmp_path / "label.html").write_text(page(items, CLASSES, [], "july", params.ingest.separator, "outputs"))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        window.open(f"file://{tmp_path}/label.html")
        window.wait("What is in these images?", "0 of 4 looked at", "new/<script>")
        first, second, third = (f"ol > li:nth-child({number})" for number in (1, 2, 3))
        assert window.ask(LEAVES)
        window.click(f"{first} ul label", "^owl, grey")
        assert not window.ask(LEAVES), "a label that was changed is work, also before its image is looked at"
        window.click(f"{first} .looked")
        window.click(f"{second} ul label", "^fox")
        window.click(f"{second} ul li:nth-child(3) button")
        window.click(f"{second} .looked")
        field = f'document.querySelector("{third} input[type=text]")'
        write = f'{field}.value = "%s"; {field}.dispatchEvent(new Event("change", {{bubbles: true}}))'
        window.click(f"{third} .looked")
        window.ask(write % "no such class")
        window.wait("3 of 4 looked at, 1 with a class that is not in the list")
        assert window.ask('document.querySelector("footer button").disabled')
        window.ask(write % " Deer")
        window.ask(write % "fe\u0301lin")
        window.wait("3 of 4 looked at")
        assert not window.ask(LEAVES)
        window.click("footer button", "Save")
        assert window.ask(LEAVES)
        end, folder = time.monotonic() + 20, tmp_path / "data"
        while not (saved := sorted((tmp_path / "saved").glob("july-*.csv"))):
            assert time.monotonic() < end
            time.sleep(0.2)
    (table,) = saved
    assert re.fullmatch(r"july-20\d\d-\d\d-\d{8}\.csv", table.name)
    (folder / "added").mkdir(parents=True)
    shutil.move(table, folder / "added")
    (folder / "labels.csv").write_text("path,labels,group\nfirst.jpg,fox,site 1\n")
    rows = "".join('"' + name.replace('"', '""') + '"\n' for name in CLASSES)
    (folder / "classes.csv").write_text(f"name\n{rows}")
    annotations, added = add_images(read_annotations(DataFolder(folder), params), DataFolder(folder), params.ingest)
    assert (added, annotations.problems) == (3, [])
    table = annotations.rows.iloc[1:]
    named = [[[CLASSES[c] for c in row] for row in table[column]] for column in ("labels", "unknown")]
    assert list(zip(table["path"], *named, strict=True)) == [
        (paths[0], ["fox", "owl, grey"], []),
        (paths[1], [], [CLASSES[2]]),
        (paths[2], ["fox", "deer", "f\u00e9lin"], []),
    ]
    assert table["given_split"].tolist() == ["train"] * 3
    assert table["group"].tolist() == ["site, 4"] * 3


def test_a_label_that_is_not_sure_is_named_to_a_screen_reader_until_its_name_is_typed(tmp_path: Path) -> None:
    labels = [(name, "0.10", False) for name in CLASSES[:3]]
    items = [{"path": "a.jpg", "labels": labels, "source": "", "link": "", "split": "", "group": ""}]
    (tmp_path / "label.html").write_text(page(items, CLASSES, [], "july", "|", "outputs"))
    (tmp_path / "profile").mkdir()
    buttons = """[...document.querySelectorAll("ul button")]
        .map(one => [one.ariaLabel, one.ariaPressed, one.parentElement.className])"""
    write = """(field => { field.value = "%s"; field.dispatchEvent(new Event("change", {bubbles: true})); })
        (document.querySelector("input[type=text]"))"""
    with Browser(tmp_path / "profile") as window:
        window.open(f"file://{tmp_path}/label.html")
        window.wait("0 of 1 looked at")
        window.click("ul li:nth-child(2) button")
        first, third = ["not sure of fox", "false", ""], [f"not sure of {CLASSES[2]}", "false", ""]
        assert window.ask(buttons) == [first, ["not sure of owl, grey", "true", "unsure"], third]
        window.ask(write % "owl, grey")
        window.ask(write % "deer")
        sure = ["not sure of owl, grey", "false", ""]
        assert window.ask(buttons) == [first, sure, third, ["not sure of deer", "false", ""]]


def test_ticks_do_not_move_to_other_labels_when_one_comes_back_to_the_page(tmp_path: Path) -> None:
    labels = [(name, "0.10", name == "fox") for name in CLASSES[:3]]
    paths = ["a.jpg", "b.jpg", "c.jpg"]
    items = [{"path": path, "labels": labels, "source": "", "link": "", "split": "", "group": ""} for path in paths]
    (tmp_path / "label.html").write_text(page(items, CLASSES, [], "july", "|", "outputs"))
    (tmp_path / "profile").mkdir()
    ticks = 'items.map(item => [...item.querySelectorAll("input[type=checkbox]")].map(box => box.checked))'
    with Browser(tmp_path / "profile") as window:
        window.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        window.open(f"file://{tmp_path}/label.html")
        window.wait("0 of 3 looked at")
        fresh = window.ask(ticks)
        window.click("ol > li:nth-child(1) input[type=text]")
        window.type("deer")
        window.press("Enter", 13)
        window.click("ol > li:nth-child(2) .looked")
        window.wait("1 of 3 looked at")
        window.click("footer button", "Save")
        window.leave_and_return()
        window.wait("0 of 3 looked at")
        assert window.ask(ticks) == fresh
