"""Deskside."""
