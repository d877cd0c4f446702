"""Speed, as ratios to plain baselines in the same run: ``make bench``."""

import stages  # noqa: F401  (puts the src of this checkout first on the import path)
