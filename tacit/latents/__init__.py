"""Latent actions: what an inverse model says happened between two frames, and what a forward model makes of it."""

from tacit.latents.model import LatentActions, infer, label

__all__ = ["LatentActions", "infer", "label"]
