"""Policies: what to do now, given what is seen and a memory that is passed in and handed back."""

from tacit.policies.cloning import Cloning, Following
from tacit.policies.policy import Policy

__all__ = ["Cloning", "Following", "Policy"]
