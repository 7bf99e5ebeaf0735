"""Metrics, test-time ensembling, thresholds, baselines and the report."""
