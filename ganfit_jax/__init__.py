"""GANFIT in JAX: photos of a person -> a textured 3D face. The public names; each is imported when it is first used."""
# ruff: noqa: F401  (what type checkers see is imported by `__getattr__`)

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganfit_jax.config import PRESETS, Config
    from ganfit_jax.errors import InputError
    from ganfit_jax.export import load_fit, write_glb, write_obj
    from ganfit_jax.pipeline import Result, fit_photos, load_models, observe_photo
    from ganfit_jax.results import draw_person, write_results
    from ganfit_jax.types import Camera, Fit, Identity, Light, Models, Observation, Params, Rendering, View

_HOMES = {
    "config": ("PRESETS", "Config"),
    "errors": ("InputError",),
    "export": ("load_fit", "write_glb", "write_obj"),
    "pipeline": ("Result", "fit_photos", "load_models", "observe_photo"),
    "results": ("draw_person", "write_results"),
    "types": ("Camera", "Fit", "Identity", "Light", "Models", "Observation", "Params", "Rendering", "View"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ganfit_jax' has no attribute '{name}'")
    return getattr(import_module(f"ganfit_jax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
