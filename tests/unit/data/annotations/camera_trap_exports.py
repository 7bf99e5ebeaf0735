"""Tables of camera traps in the shape that each tool writes: a cat and a traffic light on 001, a dog and something
unknown on 002, nothing on 003; nobody has labelled d.
"""

from __future__ import annotations

from pathlib import Path

MEDIA = "mediaID,deploymentID,timestamp,filePath,fileName,fileMediatype\n"
OBSERVATIONS = (
    "observationID,deploymentID,mediaID,eventStart,eventEnd,observationLevel,observationType,scientificName,"
    "classificationMethod\n"
)


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def timelapse(root: Path) -> None:
    answers = {"001": ["Cat", "traffic light", "cat"], "002": ["Dog", "Unknown"], "003": ["Blank"], "d": [""]}
    rows = [f"S,{name}.JPG,Site 1\\2024,{answer}\n" for name, names in answers.items() for answer in names]
    put(root, "TimelapseData.csv", "RootFolder,File,RelativePath,Species\n" + "".join(rows))
    put(root, "images/Site 1/2024/001.jpg", "")


def camtrap_dp(root: Path) -> None:
    """001 by two observations of its own, whose event names a dog; 002 by two events alone, one within the other, in
    another time zone; e is of a machine.
    """
    times = {"001": "10:00:00Z", "002": "13:00:05+02:00", "003": "12:00:00Z", "d": "13:00:00Z", "v": "12:00:00Z"}
    times["e"] = "14:00:00.123456789Z"
    put(
        root,
        "media.csv",
        MEDIA
        + "".join(
            f"{name},A,2020-05-30T{time},{'https://a.org/' * (name == '003')}media/{name}.jpg,x.JPG,"
            f"{'video/mp4' if name == 'v' else 'image/jpeg'}\n"
            for name, time in times.items()
        ),
    )
    rows = [
        ("001", "10:00:00Z", "10:00:00Z", "media", "animal", "cat"),
        ("001", "10:00:00Z", "10:00:00Z", "media", "vehicle", "traffic light"),
        ("", "09:59:00Z", "10:01:00Z", "event", "animal", "dog"),
        ("", "11:00:00Z", "11:00:10Z", "event", "animal", "dog"),
        ("", "11:00:02Z", "11:00:06Z", "event", "animal", ""),
        ("", "11:00:04Z", "11:00:04Z", "event", "animal", "cat"),
        ("002", "11:00:05Z", "11:00:05Z", "media", "animal", "cat", "machine"),
        ("e", "14:00:00Z", "14:00:00Z", "media", "animal", "cat", "machine"),
        ("003", "12:00:00Z", "12:00:00Z", "media", "blank", ""),
        ("d", "13:00:00Z", "13:00:00Z", "media", "unclassified", ""),
        ("v", "12:00:00Z", "12:00:00Z", "media", "animal", "cat"),
    ]
    lines = [
        f"o{number},A,{image},2020-05-30T{start},2020-05-30T{end},{level},{kind},{name},{''.join(method)}\n"
        for number, (image, start, end, level, kind, name, *method) in enumerate(rows)
    ]
    put(root, "observations.csv", OBSERVATIONS + "".join(lines))
    put(root, "deployments.csv", "deploymentID,locationID,latitude\nA,Site 1,51.5\nB,,51.5\n")


def wildlife_insights(root: Path) -> None:
    rows = [
        ("001", "0", "Mammalia", "Cat"),
        ("001", "0", "Mammalia", "Traffic light"),
        ("002", "0", "Mammalia", "Dog"),
        ("002", "0", "Unknown", "Unknown"),
        ("003", "1", "", "Blank"),
        ("d", "0", "No CV Result", "No CV Result"),
    ]
    lines = [f"p,D1,{name}x,gs://bucket/D1/{name}.jpg,{empty},{kind},{what}\n" for name, empty, kind, what in rows]
    put(root, "images.csv", "project_id,deployment_id,image_id,location,is_blank,class,common_name\n" + "".join(lines))
    put(root, "deployments.csv", "deployment_id,placename\nD1,Site 1\n")


CAMERA_TRAPS = {"Timelapse": timelapse, "Camtrap DP": camtrap_dp, "Wildlife Insights": wildlife_insights}
