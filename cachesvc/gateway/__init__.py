"""The S3 gateway: a node's objects over HTTP, with S3's semantics, for programs that speak S3.

Story: `server` takes a request, `target` says which object it names, `operation` what it wants.
GetObject and HeadObject are answered from the cache (`lookup` for version and header fields,
`conditions` and `ranges` for what to send, `reading` and `outlet` for the bytes); everything else
that is understood is signed anew and passed to the origin (`relay`, `passing`), and writes make the
nodes forget what they knew of the object.
"""
