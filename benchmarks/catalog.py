"""The systems by name: what reads, which server answers, what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.job import IN_PLACE

MEMORY_COPY, RAW_SENDFILE, ARRAY = "memory copy", "raw sendfile", "array in place"
CEILINGS = (MEMORY_COPY, RAW_SENDFILE)
LANE_RAW, NGINX_RAW = "cachesvc lane, raw client", "nginx sendfile, raw client"
LANE, GRPC, UNIX = (
    "cachesvc CacheClient lane",
    "cachesvc CacheClient grpc",
    "cachesvc CacheClient unix",
)
REGION = "cachesvc Region, copied out"
REGION_FIRST, REGION_AGAIN = "cachesvc Region in place, first", "cachesvc Region in place, again"
MMAP_IN_PLACE, PREADV, MMAP = "local mmap in place", "local preadv", "local mmap, copied out"
NGINX_CACHE, VARNISH, REDIS = "nginx proxy_cache, raw client", "varnish, raw client", "redis"


@dataclass(frozen=True, slots=True)
class System:
    """One line of a table. reader: its function (systems.opener_of); server: one of Servers.
    own_files: what it has read once it reads from files of its own, and no more over a socket.
    """

    name: str
    reader: str
    server: str = ""
    needs: tuple[str, ...] = ()
    own_files: bool = False

    @property
    def in_place(self) -> bool:
        return self.reader.endswith(IN_PLACE)

    @property
    def over_socket(self) -> bool:
        elsewhere = bool(self.server) and self.server != "node" and self.name not in CEILINGS
        return elsewhere and not self.own_files


def _s3(name: str, reader: str, *needs: str) -> System:
    return System(name, reader, "nginx", needs)


SYSTEMS = {
    system.name: system
    for system in (
        System(MEMORY_COPY, "memory_copy"),
        System(RAW_SENDFILE, "raw_sendfile", "sendfile"),
        System(ARRAY, "array_in_place", "", ("numpy",)),
        System(LANE_RAW, "lane_raw", "node"),
        System(LANE, "client_lane", "node"),
        System(GRPC, "client_grpc", "node"),
        System(UNIX, "client_unix", "node", ("unix",)),
        System(REGION, "region", "node", ("unix",)),
        System(REGION_FIRST, "region_first_in_place", "node", ("unix", "numpy")),
        System(REGION_AGAIN, "region_again_in_place", "node", ("unix", "numpy")),
        System(NGINX_RAW, "http_raw", "nginx"),
        System(NGINX_CACHE, "http_raw", "nginx cache"),
        System(VARNISH, "http_raw", "varnish"),
        System(REDIS, "redis_get", "redis", ("redis",)),
        _s3("boto3", "boto3_get", "boto3"),
        _s3("s3fs", "s3fs_get", "s3fs"),
        _s3("s3fs blockcache", "s3fs_blockcache", "s3fs"),
        System("fsspec filecache", "fsspec_filecache", "nginx", ("fsspec", "s3fs"), own_files=True),
        _s3("obstore", "obstore_get", "obstore"),
        _s3("pyarrow S3FileSystem", "pyarrow_get", "pyarrow"),
        System(PREADV, "local_preadv"),
        System(MMAP, "local_mmap"),
        System(MMAP_IN_PLACE, "local_mmap_in_place", "", ("numpy",)),
    )
}
