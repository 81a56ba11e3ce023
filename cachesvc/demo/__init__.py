"""The demo: three nodes and an S3 origin on this machine, real input, every byte compared.

Where what lives: `inputs` real weights and a real dataset as a folder of objects; `cluster` the
processes; `reader` the program of a reading process; `run` the steps; `table` what they showed.
"""
