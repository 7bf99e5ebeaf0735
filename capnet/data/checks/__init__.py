"""The data gate: tables, rules and findings. expectations.py is the only importer of great_expectations."""
