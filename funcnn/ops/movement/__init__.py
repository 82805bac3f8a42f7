"""The same elements under another shape, joined, padded or in windows."""
