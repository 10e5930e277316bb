"""A few variants for a first look; see `ablation.py` for all.

python experiments/ablate.py --output=runs/ablation_small
"""

from typing import Any


def get_variants() -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from full."""
    return {
        "no network terms": {f"weights.{name}": 0.0 for name in ("identity", "second_identity", "content")},
        "no pixel": {"weights.pixel": 0.0},
        "no landmark": {"weights.landmark": 0.0},
        "no stage one": {"align.steps": 0},
    }
