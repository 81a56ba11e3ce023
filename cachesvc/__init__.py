"""A distributed hot-data cache for S3."""
