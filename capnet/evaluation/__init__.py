"""From scores to figures: metrics, bootstrap, thresholds, calibration, baselines, test-time ensembling. Nothing here
trains or talks to MLflow.
"""
