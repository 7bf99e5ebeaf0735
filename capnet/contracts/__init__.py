"""Every file that crosses a stage: its schema, one reader, one writer, fingerprints. No pickle, and nothing that only
one stage reads.
"""

from capnet.contracts.classes import BUCKETS as BUCKETS
from capnet.contracts.classes import Classes as Classes
from capnet.contracts.classes import make_classes as make_classes
from capnet.contracts.classes import read_classes as read_classes
from capnet.contracts.classes import slugify as slugify
from capnet.contracts.classes import write_classes as write_classes
from capnet.contracts.files import SCHEMA as SCHEMA
from capnet.contracts.files import check_schema as check_schema
from capnet.contracts.files import csv_text as csv_text
from capnet.contracts.files import md5_file as md5_file
from capnet.contracts.files import number as number
from capnet.contracts.files import read_csv_rows as read_csv_rows
from capnet.contracts.files import read_json as read_json
from capnet.contracts.files import reading as reading
from capnet.contracts.files import replace_file as replace_file
from capnet.contracts.files import replacing as replacing
from capnet.contracts.files import sha256_file as sha256_file
from capnet.contracts.files import sha256_files as sha256_files
from capnet.contracts.files import tree_hash as tree_hash
from capnet.contracts.files import write_json as write_json
from capnet.contracts.image_rows import flat as flat
from capnet.contracts.tables import MANIFEST_COLUMNS as MANIFEST_COLUMNS
from capnet.contracts.tables import PREDICTION_COLUMNS as PREDICTION_COLUMNS
from capnet.contracts.tables import SCORED_COLUMNS as SCORED_COLUMNS
from capnet.contracts.tables import SEEN_COLUMNS as SEEN_COLUMNS
from capnet.contracts.tables import SPLITS as SPLITS
from capnet.contracts.tables import VARIANTS as VARIANTS
from capnet.contracts.tables import label_matrix as label_matrix
from capnet.contracts.tables import read_gate_rows as read_gate_rows
from capnet.contracts.tables import read_manifest as read_manifest
from capnet.contracts.tables import read_predictions as read_predictions
from capnet.contracts.tables import read_split as read_split
from capnet.contracts.tables import unit_codes as unit_codes
from capnet.contracts.tables import write_gate_rows as write_gate_rows
from capnet.contracts.tables import write_manifest as write_manifest
from capnet.contracts.tables import write_predictions as write_predictions
from capnet.contracts.tables import write_split as write_split
from capnet.contracts.tensors import LabelGraph as LabelGraph
from capnet.contracts.tensors import check_tensors as check_tensors
from capnet.contracts.tensors import read_cached_tensors as read_cached_tensors
from capnet.contracts.tensors import read_graph as read_graph
from capnet.contracts.tensors import read_tensors as read_tensors
from capnet.contracts.tensors import write_graph as write_graph
from capnet.contracts.tensors import write_tensors as write_tensors
