"""``python -m tacit``: the same commands where no script was installed."""

from tacit.cli import main

raise SystemExit(main())
