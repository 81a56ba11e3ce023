"""Interception: GetObject and HeadObject of boto3 and aiobotocore, answered from the cache.

Story: `hooks` puts an interceptor beside every S3 client that is made (botocore's documented
events). Before a request is sent, `request` tells whether it is a plain read of an object of the
cluster's origin; `answer` decides what to say, with the header fields that S3 itself gave this
client (`fields`), and the bytes come from the cache (`stream`, `sync`, `aio`). Whatever is unusual,
whatever fails, and every answer that is no plain success is left to S3: the request goes on as if
nobody had looked at it.
"""
