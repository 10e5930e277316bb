"""One photo against many: items with several photos of a person, fitted with some of them.

    python experiments/ablate.py --photos= --synthetic=10 --synthetic_photos=4 \\
        --variants=experiments/configs/ablation_photos.py --output=runs/ablation_photos

"full" uses all photos. Expected: the geometry error falls with every photo; identity figures are of the first photo.
"""

from typing import Any


def get_variants() -> dict[str, dict[str, Any]]:
    """Name -> settings that differ from full."""
    return {"one photo": {"photos": 1}, "two photos": {"photos": 2}}
