"""The only part of vqtool that imports torch."""
