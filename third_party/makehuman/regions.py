"""Region masks, the layout of the chart, and the closing of the lips, on the mean mesh (origin between the eyes)."""

import geometry
import numpy as np

HAIRLINE = 62.0  # height of the hairline above the eyes on the mid-line, mm
EYE_DISC = 0.072  # radius of the eyeballs' islands in the chart
SHEET_INSET = 0.9  # size of the mouth sheet's island relative to the opening of the lips in the chart
GAP = 0.012  # free space between the islands of the chart
OVERLAP = 0.3  # the closed lips overlap by this much, mm


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def masks(vertices: np.ndarray, mesh: geometry.Mesh) -> dict[str, np.ndarray]:
    """Masks [v] in [0, 1], by position on the mean."""
    rim = mesh.inner.astype(float)
    x, y, z = vertices.T
    skin = (mesh.part == 0).astype(float)
    ear_y, ear_z = (y + 18.0) / 36.0, (z + 83.0 + 0.2 * (y + 18.0)) / 21.0
    ears = skin * smoothstep(np.abs(x), 52.0, 58.0) * (1.0 - smoothstep(ear_y**2 + ear_z**2, 1.0, 1.35))
    below = -113.0 - 0.42 * np.minimum(z, 0.0)  # the line from under the chin up to behind the ear lobes
    neck = skin * smoothstep(below - y, -3.0, 3.0)
    azimuth = np.degrees(np.arctan2(np.abs(x), z + 75.0))
    front = 1.0 - smoothstep(azimuth, 76.0, 84.0)
    hair = 1.0 - smoothstep(y - HAIRLINE + 0.008 * np.maximum(azimuth - 20.0, 0.0) ** 2, -8.0, 8.0)
    face = skin * front * hair * (1.0 - ears) * (1.0 - neck) * (1.0 - rim)
    return {
        "face": face,
        "eyes": np.isin(mesh.part, (1, 2)).astype(float),
        "mouth": np.maximum((mesh.part == 3).astype(float), rim),
        "ears": ears,
        "neck": neck,
    }


def density(vertices: np.ndarray, ears: np.ndarray) -> np.ndarray:
    """Wanted scale of the chart: 2 in the middle of the face (brows, eyes, nose, mouth), less on skull, ears, neck.

    (Set by the texture models: the middle of the face is where a texel must not be larger than a photo's pixel.)
    """
    x, y, z = vertices.T
    front = 0.3 + 0.6 * smoothstep(z, -105.0, -40.0)
    low = 0.5 + 0.5 * smoothstep(y, -135.0, -105.0)
    middle = smoothstep(z, -60.0, -10.0) / (1.0 + (x / 58.0) ** 4 + ((y + 35.0) / 78.0) ** 4)
    return np.maximum(front * low, 0.6 * ears) + 1.1 * middle


def lay_out(skin_uv: np.ndarray, mesh: geometry.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Chart in the unit square: (uv [t, 2], uv_faces [f, 3]).

    skin_uv [q, 4, 2] is the flattened skin. The eyeballs get a disc each in the two upper corners, the mouth sheet
    fills the opening of the lips, a little smaller than it.
    """
    low, high = skin_uv.reshape(-1, 2).min(0), skin_uv.reshape(-1, 2).max(0)
    centre = np.array([0.0, (low[1] + high[1]) / 2.0])
    scale = (1.0 - 2.0 * GAP) / (high - low)
    square = 0.5 + (skin_uv - centre) * scale
    skin = np.einsum("fcq,fqd->fcd", mesh.children, square[mesh.parent])
    count = len(skin)
    corner_uv = np.full((len(mesh.faces), 3, 2), np.nan)
    corner_uv[:count] = skin
    per_vertex = np.full((len(mesh.part), 2), np.nan)
    for part, side in ((1, 1.0), (2, -1.0)):
        mine = mesh.part == part
        theta, phi = mesh.eye_angle[mine].T
        radius = EYE_DISC * np.interp(theta, [0.0, np.radians(60.0), geometry.EYE_RINGS[-1]], [0.0, 0.85, 1.0])
        disc = np.stack([np.cos(phi), -np.sin(phi)], 1) * radius[:, None]
        at = GAP + EYE_DISC
        per_vertex[mine] = disc + np.array([0.5 + side * (0.5 - at), at])
    rim = np.full((len(mesh.part), 2), np.nan)
    rim[mesh.faces[:count].ravel()] = skin.reshape(-1, 2)
    in_sheet = (mesh.part[mesh.faces] == 3).any(1)
    loop = np.unique(mesh.faces[in_sheet])
    loop = loop[mesh.part[loop] == 0]
    border = rim[loop]
    top, bottom = border[:, 1].min(), border[:, 1].max()
    middle = np.array([0.5, (top + bottom) / 2.0])
    half = np.array([np.abs(border[:, 0] - 0.5).max(), (bottom - top) / 2.0])
    on_border = (border - middle) / half
    on_border /= np.linalg.norm(on_border, axis=1, keepdims=True)  # a clean ellipse
    per_vertex[loop] = middle + SHEET_INSET * half * on_border
    sheet = mesh.part == 3
    column, row = mesh.mouth_grid[sheet].T
    above, below = per_vertex[mesh.mouth_rim[:, column.astype(int)]]
    per_vertex[sheet] = above + row[:, None] * (below - above)
    patches = np.arange(len(mesh.faces)) >= count
    corner_uv[patches] = per_vertex[mesh.faces[patches]]
    key = np.concatenate([mesh.faces.reshape(-1, 1), np.round(corner_uv.reshape(-1, 2) * 2**24)], 1)
    _, first, index = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return corner_uv.reshape(-1, 2)[first], index.reshape(-1, 3)


def close_lips(vertices: np.ndarray, mesh: geometry.Mesh, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Offset [v, 3] that brings the lips of the neutral mouth together.

    upper, lower: ids of the vertices of the upper and the lower lip.
    """
    columns = np.linspace(-24.0, 24.0, 49)

    def edge(ids: np.ndarray, sign: float) -> np.ndarray:
        x, y = vertices[ids, 0], vertices[ids, 1] * sign
        near = np.abs(x[None] - columns[:, None]) < 1.5
        return sign * np.where(near, y[None], -np.inf).max(1)

    bottom_of_upper, top_of_lower = edge(upper, -1.0), edge(lower, 1.0)
    gap = bottom_of_upper - top_of_lower + OVERLAP
    gap = np.maximum(np.where(np.isfinite(gap), gap, 0.0), 0.0)
    x, y, z = vertices.T
    g = np.interp(np.abs(x), columns[24:], gap[24:], right=0.0)
    line = np.interp(np.abs(x), columns[24:], ((bottom_of_upper + top_of_lower) / 2.0)[24:])
    depth = np.interp(np.abs(x), [0.0, 25.0], [vertices[upper, 2].max(), vertices[upper, 2].max() - 14.0])
    reach = np.exp(-(((y - line) / 6.0) ** 2) - (np.minimum(z - depth, 0.0) / 25.0) ** 2)
    above = np.zeros(len(vertices))
    above[upper], above[lower] = -1.0, 1.0
    offset = np.zeros_like(vertices)
    offset[:, 1] = 0.5 * above * g * reach
    return offset
