"""Every file that crosses a stage: its schema, one reader, one writer, fingerprints. No pickle, and nothing that only
one stage reads.
"""

from capnet.contracts.classes import (
    BUCKETS,
    Classes,
    make_classes,
    read_classes,
    slugify,
    write_classes,
)
from capnet.contracts.files import (
    SCHEMA,
    check_schema,
    read_evaluation,
    read_json,
    replace_file,
    replacing,
    sha256_file,
    tree_hash,
    write_json,
)
from capnet.contracts.tables import (
    MANIFEST_COLUMNS,
    PREDICTION_COLUMNS,
    SPLITS,
    VARIANTS,
    label_matrix,
    read_manifest,
    read_predictions,
    read_split,
    write_manifest,
    write_predictions,
    write_split,
)
from capnet.contracts.tensors import (
    LabelGraph,
    read_cached_tensors,
    read_graph,
    read_tensors,
    write_graph,
    write_tensors,
)

__all__ = [
    "BUCKETS",
    "MANIFEST_COLUMNS",
    "PREDICTION_COLUMNS",
    "SCHEMA",
    "SPLITS",
    "VARIANTS",
    "Classes",
    "LabelGraph",
    "check_schema",
    "label_matrix",
    "make_classes",
    "read_cached_tensors",
    "read_classes",
    "read_evaluation",
    "read_graph",
    "read_json",
    "read_manifest",
    "read_predictions",
    "read_split",
    "read_tensors",
    "replace_file",
    "replacing",
    "sha256_file",
    "slugify",
    "tree_hash",
    "write_classes",
    "write_graph",
    "write_json",
    "write_manifest",
    "write_predictions",
    "write_split",
    "write_tensors",
]
