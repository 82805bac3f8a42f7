"""Rows picked and added by index."""
