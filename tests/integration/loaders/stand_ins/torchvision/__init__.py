"""Stands in for torchvision, of which there is no build for torch's CPU build: mosaicml-streaming
imports it for datasets of images, and reads samples without it.
"""
