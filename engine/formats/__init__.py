"""Recognising and describing a model on disk, without a framework and without running anything in it.

Used only by the inspector child: the parsers here meet files nobody has checked.
"""

from engine.formats.describe import describe_model

__all__ = ["describe_model"]
