"""The colours of classes where they are drawn over a picture, in the window and in pictures that are sent."""

from __future__ import annotations

CLASS_COLOURS = ("#3BA7E5", "#F08A24", "#2CC295", "#E87FB0", "#E3C53A")
"""By the class's number; after the last it begins again. A set that colour-blind people tell apart."""
TEXT_ON_CLASS = "#0B0F11"
