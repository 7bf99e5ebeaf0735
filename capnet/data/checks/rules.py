"""What must hold of a split: one rule a line, with what its failure says and how severe it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from capnet.config import Validate
from capnet.errors import counted

GROUPED = ("groups", "largest")  # fields of a check whose rows are linked
GROUP = "the camera, slide or patient: column group of labels.csv, location in the file of camera traps"
COUNTED = {"class": "counts of a class in a split", "figure": "figures"}  # what a check counts that has this column
AGAIN = "run `capnet ingest` and `capnet split` again"


@dataclass(frozen=True)
class Rule:
    """One expectation on a column: what it ``demands``, what a failure ``says`` and what is ``todo``; ``shown`` is the
    column that explains a row. Values are ``unique``, or else within ``minimum`` and ``maximum``. ``linked``: what is
    shown is the path of another row.
    """

    name: str
    column: str
    demands: str
    says: str
    todo: str
    severity: str = "critical"  # critical or warning
    shown: str = ""
    minimum: float | None = None
    maximum: float | None = None
    unique: bool = False
    linked: bool = False


@dataclass(frozen=True)
class Check:
    """A rule's outcome: ``observed`` offending rows of ``rows``, the first of them in ``offending``; ``why`` it was not
    checked, else empty. Linked rows form ``groups``, the ``largest`` with their first path and number of images.
    """

    name: str
    severity: str
    success: bool
    observed: int
    rows: int
    offending: list[dict[str, Any]] = field(default_factory=list)
    demands: str = ""
    says: str = ""
    todo: str = ""
    why: str = ""
    groups: int = 0
    largest: list[dict[str, Any]] = field(default_factory=list)

    @property
    def size(self) -> str:
        """How many rows offend, and in how many groups: ``300 of 400 rows in 2 groups``; of classes and figures, how
        many counts and figures: neither is a row of the table of images.
        """
        groups = f" in {counted(self.groups, 'group')}" if self.groups else ""
        columns = self.offending[0] if self.offending else {}
        what = next((words for column, words in COUNTED.items() if columns.get(column) is not None), "rows")
        return f"{self.observed:,} of {self.rows:,} {what}{groups}"

    @property
    def crowds(self) -> str:
        """The largest groups in words, ``a.jpg and 298 like it``; "" where none is more than a pair."""
        large = [one for one in self.largest if one["pictures"] > 2]
        more = [f"and {counted(self.groups - len(large), 'more group')}"] if self.groups > len(large) else []
        words = [f"{one['path']} and {one['pictures'] - 1:,} like it" for one in large]
        return "; ".join(words + more) if large else ""

    def content(self) -> dict[str, Any]:
        """JSON content; rows without links have no groups there."""
        return {name: value for name, value in asdict(self).items() if self.groups or name not in GROUPED}

    @property
    def status(self) -> str:
        """passed, failed or not checked."""
        if self.why:
            return "not checked"
        return "passed" if self.success else "failed"


def not_checked(rules: Iterable[Rule], why: str) -> list[Check]:
    """Checks that were left out, and why, in words: nothing is passed over in silence."""
    return [Check(rule.name, rule.severity, True, 0, 0, demands=rule.demands, why=why) for rule in rules]


def table_rules(n_classes: int, settings: Validate) -> list[Rule]:
    """What must hold of every row of the table, before any file is opened."""
    low, high = settings.min_side, settings.max_side
    size = "replace the picture, take its row out, or change validate.min_side and validate.max_side"
    group = "correct the split or group column, or the lists of ids: pictures of one group belong in one split"
    return [
        Rule(
            "unique_image_ids",
            "image_id",
            "every image id appears once",
            "an image id appears twice",
            AGAIN,
            unique=True,
        ),
        Rule("unique_paths", "path", "every path appears once", "a picture is listed twice", AGAIN, unique=True),
        Rule(
            "labels_in_classes",
            "highest_label",
            f"every label index is below {n_classes}, the number of classes",
            "a label index is beyond the class list",
            AGAIN,
            maximum=n_classes - 1,
        ),
        Rule(
            "labels_known_or_unknown",
            "repeated_labels",
            "a label of a picture appears once: known or unknown",
            "a label is both known and unknown, or appears twice",
            AGAIN,
            maximum=0,
        ),
        *(
            Rule(
                f"{name}_in_limits",
                name,
                f"pictures are {low} to {high} pixels {measured}",
                f"a picture's {name} is not within {low} to {high} pixels",
                size,
                minimum=low,
                maximum=high,
            )
            for name, measured in (("width", "wide"), ("height", "high"))
        ),
        Rule(
            "paths_inside_data",
            "path_leaves",
            "every path is inside the data folder",
            "a path leads out of the data folder",
            "copy the picture into the data folder; where links out of it are meant, set data.links: anywhere",
            shown="path_fault",
            maximum=0,
        ),
        Rule(
            "pictures_in_one_split",
            "sides_of_picture",
            "no picture (by the sha256 of its bytes) is in two splits",
            "the same picture is in two splits",
            f"remove one of the copies and its annotations, or put them into one group ({GROUP})",
            shown="sha256",
            maximum=1,
        ),
        Rule(
            "groups_in_one_split",
            "sides_of_group",
            "no group (patient, camera site, account) is in two splits",
            "a group is in two splits",
            group,
            shown="group",
            maximum=1,
        ),
        Rule(
            "sequences_in_one_split",
            "sides_of_sequence",
            "no sequence (frames that a camera took in one go) is in two splits",
            "a sequence of frames is in two splits",
            "give the frames of a sequence, better of a camera site, one group, and run `capnet split` again; where"
            " every camera numbers its sequences from 1, begin their names with the camera's",
            shown="sequence",
            maximum=1,
        ),
    ]


def file_rules(settings: Validate) -> list[Rule]:
    """What must hold of the image files, read as ``validate.images`` says."""
    full = settings.images == "full"
    return [
        Rule(
            "pictures_present",
            "missing",
            "every picture file is there",
            "a picture file is gone",
            "put it back (dvc checkout), or ingest again",
            shown="path",
            maximum=0,
        ),
        Rule(
            "pictures_decode",
            "broken",
            "every picture decodes to its last byte" if full else "every file begins as a picture that can be read",
            "a picture file cannot be used",
            "replace it by a good copy, or take its row out",
            shown="fault",
            maximum=0,
        ),
        Rule(
            "pictures_unchanged",
            "changed",
            f"every picture has the {'bytes and ' if full else ''}size that the table says",
            "a picture file is another one than ingest saw",
            "put the old file back (dvc checkout), or ingest again",
            shown="change",
            maximum=0,
        ),
    ]


def likeness_rules(severity: str) -> list[Rule]:
    """What should hold of images that look alike, by their perceptual hashes."""
    todo = (
        f"compare them: remove a copy, or put them into one group ({GROUP}) and run `capnet split` again;"
        " validate.near_duplicates sets how severe this is, and off suits pictures that share a background and no more"
    )
    return [
        Rule(
            "near_duplicates_in_one_split",
            "look_alikes",
            "no copy of a picture, saved again or scaled, is in another split",
            "pictures that look the same are in two splits",
            todo,
            severity,
            shown="look_alike",
            maximum=0,
            linked=True,
        ),
        Rule(
            "bursts_in_one_split",
            "burst_frames",
            "no frame of a burst (files next to each other that show nearly the same) is in another split",
            "frames of a burst are in two splits",
            "give the frames of a sequence or of a camera one group, so that they stay in one split;"
            " validate.near_duplicates sets how severe this is",
            severity,
            shown="burst_frame",
            maximum=0,
            linked=True,
        ),
    ]


def class_rules(severity: str, least: int) -> list[Rule]:
    """What should hold of every class, which needs ``least`` positives."""
    return [
        Rule(
            "enough_positives",
            "positives",
            f"every class has {least} known positives or more in every split",
            f"a class has fewer than {least} known positives in a split, so its figures there say little",
            "add pictures of these classes, or read their figures with care; validate.min_positives sets the number",
            severity,
            minimum=least,
        )
    ]
