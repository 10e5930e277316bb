"""The paper's ablation, each of its losses left out (in all stages), and the texture model: for a figure.

    python experiments/ablate.py --synthetic=4 --judge=mobilefacenet.npz \\
        --variants=experiments/configs/ablation_losses.py --output=runs/ablation_losses

The astronaut and four synthetic people; expected: 45 s a cell on one CPU core, and up to
two minutes of compilation for each variant. `ablation.py` has all variants.
"""

from typing import Any

NETWORK_TERMS = ("identity", "second_identity", "content")


def get_variants() -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from full."""
    terms = {f"no {name.replace('_', ' ')}": {f"weights.{name}": 0.0} for name in (*NETWORK_TERMS, "pixel", "landmark")}
    return {
        **terms,
        "no network terms": {f"weights.{name}": 0.0 for name in NETWORK_TERMS},
        "linear texture": {"texture_model": "albedo"},
    }
