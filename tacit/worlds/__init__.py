"""Worlds: what comes next, given what is done."""
