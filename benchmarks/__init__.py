"""Benchmarks: our paths beside the peers and the ceilings, interleaved in one run, as ratios.

Where what lives: `hot_big`, `hot_small`, `cold_fill`, `stampede`, `safetensors_load`, `parquet` and
`stalled` are the workloads; `lane_nginx`, `placed`, `grpc_read`, `grpc_sweep`, `fill`, `landing`,
`cold_range`, `sending`, `sockets`, `extents` and `restart` have figures of their own, most of them
those of a decision. `catalog` names the systems, `peers` starts their servers, `systems` and
`peer_systems` are their reading ends. `measure` runs a case in this process; `reader` is the
process that reads, `job` what it is told, `weights` and `table` two kinds of its work. `marks`
judges, `report` and `plot` show, `environment` gets what is missing. The rest are tools.
"""
