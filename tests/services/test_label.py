"""The page of `capnet label` in a browser: what is ticked there is the table that ingest reads."""

from __future__ import annotations

import time
from pathlib import Path

from services.browser import Browser

from capnet.commands.label import COLUMNS, AddedTable, page
from capnet.config import parse
from capnet.data.annotations.added import add_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations

LEAVES = 'dispatchEvent(new Event("beforeunload", {cancelable: true}))'  # without a question
CLASSES = ["fox", "owl, grey", 'q"uo</script>te', "deer"]


def test_what_is_ticked_is_in_the_saved_table(tmp_path: Path) -> None:
    labels = [(CLASSES[0], "0.93", True), (CLASSES[1], "0.20", False), (CLASSES[2], "0.10", False)]
    paths = ["new/plain.jpg", 'new/a, "b".jpg', "new/<script>.jpg", "new/open.jpg"]
    items = [{"path": path, "labels": labels, "source": "", "split": "train", "group": "site, 4"} for path in paths]
    before = AddedTable(["path", "labels", "note", *COLUMNS[2:]], [["old.jpg", "deer", "=1+1"]])
    params = parse({"data": {"format": "csv"}})
    (tmp_path / "label.html").write_text(page(items, CLASSES, before, params.ingest, "outputs"))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        window.open(f"file://{tmp_path}/label.html")
        window.wait("What is in these images?", "0 of 4 looked at", "new/<script>.jpg")
        first, second, third = (f"ol > li:nth-child({number})" for number in (1, 2, 3))
        window.click(f"{first} ul label", "^owl, grey")
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
        window.wait("3 of 4 looked at")
        assert not window.ask(LEAVES)
        window.click("footer button", "Save")
        assert window.ask(LEAVES)
        end = time.monotonic() + 20
        while not (tmp_path / "saved" / "added.csv").is_file():
            assert time.monotonic() < end
            time.sleep(0.2)
    folder = tmp_path / "saved"
    (folder / "labels.csv").write_text("path,labels,group\nfirst.jpg,fox,site 1\n")
    rows = "".join('"' + name.replace('"', '""') + '"\n' for name in CLASSES)
    (folder / "classes.csv").write_text(f"name\n{rows}")
    annotations, added = add_images(read_annotations(DataFolder(folder), params), DataFolder(folder), params.ingest)
    assert (added, annotations.problems) == (4, [])
    table = annotations.rows.iloc[1:]
    named = [[[CLASSES[c] for c in row] for row in table[column]] for column in ("labels", "unknown")]
    assert list(zip(table["path"], *named, strict=True)) == [
        ("old.jpg", ["deer"], []),
        (paths[0], ["fox", "owl, grey"], []),
        (paths[1], [], [CLASSES[2]]),
        (paths[2], ["fox", "deer"], []),
    ]
    assert table["given_split"].tolist()[1:] == ["train"] * 3
    assert table["group"].tolist()[1:] == ["site, 4"] * 3
    assert (folder / "added.csv").read_text().splitlines()[1].startswith('"old.jpg","deer","=1+1"')
