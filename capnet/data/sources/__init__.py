"""Where data.root is: a folder, S3 or git with DVC; copies of it.

Only s3.py imports boto3, only dvc_versions.py imports dvc.
"""
