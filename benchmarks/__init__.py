"""Measurements that docs/ cites: one module a benchmark, each with ``main(arguments)``. Nothing of capnet imports from
here.
"""
