"""From native annotations to one validated frame: rows, class list, tables, paths. A format's reader is in readers/."""

# the settings import every reader for its section, and a reader imports this folder: so they come first
from capnet import config as config
