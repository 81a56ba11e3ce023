"""Benchmarks: our paths beside a peer or a ceiling, interleaved in one run, as ratios."""
