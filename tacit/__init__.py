"""tacit learns to act from recordings that carry no action labels."""

__version__ = "0.1.0"
