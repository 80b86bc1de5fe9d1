"""Methods: each a function that builds shared parts and calls one ``fit``."""
