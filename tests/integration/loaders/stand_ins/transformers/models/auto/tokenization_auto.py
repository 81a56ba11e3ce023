"""What mosaicml-streaming imports of it."""


class AutoTokenizer:
    """Of datasets of text; none is made here."""
