"""Public checks of every contract: hand over a reader, a part, a model or a policy, and learn what it breaks.

Each check returns in silence, or raises ``Broken`` with the promise, what was seen instead, and where to look. What is
checked is a copy: nothing is trained, and no random state is moved.
"""

from tacit.check.head import check_head
from tacit.check.latents import check_latents
from tacit.check.part import check_part
from tacit.check.policy import check_policy
from tacit.check.promise import Broken
from tacit.check.reader import check_reader

__all__ = ["Broken", "check_head", "check_latents", "check_part", "check_policy", "check_reader"]
