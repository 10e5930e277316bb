"""The variants of the full ablation: each term left out (in all stages), and each part of the method.

    python experiments/ablate.py --photos=PORTRAITS --list=experiments/configs/held_out.txt --limit=12 --synthetic=10 \\
        --judge=mobilefacenet.npz --variants=experiments/configs/ablation.py --output=runs/ablation

A variant changes settings of `ganfit_jax/config.py`, named by dotted keys; "photos" uses only the first so many photos
of each item. "full", the settings as they are, always runs first; variants that change nothing are left out.
"one photo" has cells for items with several photos only: `ablation_photos.py` makes such.
"""

from typing import Any

from ganfit_jax.config import TERMS

NETWORK_TERMS = ("identity", "second_identity", "content")


def get_variants() -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from full."""
    terms = {f"no {name.replace('_', ' ')}": {f"weights.{name}": 0.0} for name in TERMS}
    return {
        **terms,
        "no network terms": {f"weights.{name}": 0.0 for name in NETWORK_TERMS},
        "linear texture": {"texture_model": "albedo"},
        "no stage one": {"align.steps": 0},
        "no colour stage": {"colour.steps": 0},
        "fixed jaw line": {"moving_jaw": False},
        "one photo": {"photos": 1},
    }
