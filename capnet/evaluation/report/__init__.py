"""One self-contained HTML page from the files of a run. It shows what evaluation measured and measures nothing."""
