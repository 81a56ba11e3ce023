"""What mosaicml-streaming imports of it."""


class VisionDataset:
    """A base of its datasets of images; none is made here."""
