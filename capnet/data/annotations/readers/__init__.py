"""Readers of native annotation formats, one file a format: its name is what ``data.format`` says. What all share is one
folder up.

A reader has ``read(folder: DataFolder, settings: Ingest) -> Annotations`` and, where it has settings, ``class
Settings(Section)``: the section ``ingest.NAME``. The settings import every reader, so heavy packages belong inside
functions, and ``Section`` and ``InsidePath`` come from capnet.section.
"""
