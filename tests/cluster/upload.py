"""Put a folder into a bucket, which is made: python tests/cluster/upload.py FOLDER BUCKET PREFIX."""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: str, bucket: str, prefix: str) -> None:
    import boto3

    client = boto3.client("s3")
    if bucket not in {item["Name"] for item in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    for path in paths:
        client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")
    print(f"{len(paths)} files in s3://{bucket}/{prefix}")


if __name__ == "__main__":
    main(*sys.argv[1:])
