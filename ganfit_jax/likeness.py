"""Do renders show the people in the photos? Figures over all pairs of renders and photos, by a network's embeddings."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Seen(NamedTuple):
    """Embeddings of pictures by one network; rows of NaN where no face was found."""

    people: tuple[str, ...]  # who each picture is to show
    embeddings: Float[np.ndarray, "n d"]


class Likeness(NamedTuple):
    """Similarities (cosine, or minus the distance) of renders and photos."""

    same: Float[np.ndarray, "p"]  # every pair of one person
    different: Float[np.ndarray, "q"]  # every pair of two people
    own: Float[np.ndarray, "r"]  # of each render and the most similar photo of its person
    right: Float[np.ndarray, "r"]  # 1 where the render's most similar photo shows its person; 0 where no face is found


def similarities(
    renders: Float[np.ndarray, "r d"], photos: Float[np.ndarray, "p d"], metric: str
) -> Float[np.ndarray, "r p"]:
    """Cosine, or minus the Euclidean distance, of every render and photo."""
    if metric == "cosine":
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (renders, photos)]
        return unit[0] @ unit[1].T
    return -np.linalg.norm(renders[:, None] - photos[None], axis=-1)


def judged(renders: Seen, photos: Seen, metric: str) -> Likeness:
    """Compares every render with every photo. A picture without a face is similar to nothing."""
    similarity = similarities(renders.embeddings, photos.embeddings, metric)
    same = np.array(renders.people)[:, None] == np.array(photos.people)[None]
    known = np.isfinite(similarity)
    filled = np.where(known, similarity, -np.inf)
    own = np.where(same, filled, -np.inf).max(1)
    right = (own > np.where(same, -np.inf, filled).max(1)) & np.isfinite(own)
    own = np.where(np.isfinite(own), own, np.nan)
    return Likeness(similarity[same & known], similarity[~same & known], own, right.astype(np.float64))


def joined(seen: Sequence[Seen]) -> Seen:
    """All of these pictures together."""
    return Seen(sum((s.people for s in seen), ()), np.concatenate([s.embeddings for s in seen]))


def table_row(found: Likeness, metric: str) -> dict[str, Any]:
    """Figures of a kind of render; distances where the network's authors compare by distance."""
    sign, name = (1.0, "cosine") if metric == "cosine" else (-1.0, "distance")
    middle = [float(sign * np.median(v)) if len(v) else np.nan for v in (found.same, found.different)]
    return {
        "pictures": len(found.own),
        f"{name}, same person": middle[0],
        f"{name}, different people": middle[1],
        "nearest photo is right, %": 100.0 * float(found.right.mean()),
        "no face found": int(np.isnan(found.own).sum()),
    }
