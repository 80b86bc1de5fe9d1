"""Shared blocks: whatever two methods would otherwise both write."""
