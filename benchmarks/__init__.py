"""Measurements that docs/ cites: one module a benchmark, each with ``main(arguments) -> int``. Nothing of capnet
imports from here.
"""
