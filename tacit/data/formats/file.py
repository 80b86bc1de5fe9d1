"""For now: what moved to ``tacit.data.file``."""

from tacit.data.file import need as need
from tacit.data.file import whole as whole
