"""Methods: each a function that wires shared parts and calls ``fit``."""
