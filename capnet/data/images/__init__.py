"""The only way from an image file to a tensor: decoding, views, features, shards, near-duplicates."""
