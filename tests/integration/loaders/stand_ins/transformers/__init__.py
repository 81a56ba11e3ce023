"""Stands in for transformers: mosaicml-streaming imports it for the types of batches, and for
datasets of text, and reads samples without it.
"""
