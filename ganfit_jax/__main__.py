"""The command ``ganfit PHOTO [PHOTO...] --output=DIR``: photos of one person -> a folder of results."""

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from ganfit_jax.config import PRESETS, Config
from ganfit_jax.errors import InputError, complain

USAGE = """ganfit PHOTO [PHOTO...] --output=DIR

Fits one textured 3D face to one photo, or to several photos of the same person.
Examples:
  ganfit me.jpg --output=out
  ganfit a.jpg b.jpg c.jpg --output=out --config.weights.identity=0
Settings: --config.FIELD=VALUE changes one; --preset=NAME or --config=FILE.py (with get_config()) choose all."""


def scan(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Takes ``--name=value`` (or ``--name value``) out of the arguments."""
    value, rest, pending = None, [], False
    for argument in arguments:
        if pending:
            value, pending = argument, False
        elif argument in (f"--{name}", f"-{name}"):
            pending = True
        elif argument.startswith((f"--{name}=", f"-{name}=")):
            value = argument.split("=", 1)[1]
        else:
            rest.append(argument)
    if pending:
        raise InputError(f"--{name}: found no value, expected one")
    return value, rest


def base_config(preset: str | None, file: str | None) -> Config:
    """The settings to start from: a preset, or what ``get_config()`` of a Python file returns."""
    if preset is not None and file is not None:
        raise InputError("--preset and --config=FILE were both given, expected one of them")
    if file is None:
        name = preset or "fast"
        if name not in PRESETS:
            raise InputError(f"--preset={name}: unknown preset, expected one of {', '.join(PRESETS)}")
        return PRESETS[name]()
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file, expected a Python file with get_config()")
    spec = importlib.util.spec_from_file_location("ganfit_config", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: not a Python file, expected one with get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # whatever a user's file does wrong is one line here
        raise InputError(f"{file}: {type(error).__name__}: {error}; expected a file with get_config()") from None
    if not isinstance(config, Config):
        raise InputError(f"{file}: get_config() returned {type(config).__name__}, expected ganfit_jax.config.Config")
    return config


def parse(arguments: Sequence[str]) -> tuple[list[str], Any, Config]:
    """Photos, flags and settings of a command line; raises `InputError` with one line."""
    preset, rest = scan(arguments, "preset")
    file, rest = scan(rest, "config")
    config = base_config(preset, file)
    values = flags.FlagValues()
    flags.DEFINE_string("output", "ganfit_output", "Folder for the results.", flag_values=values)
    flags.DEFINE_string("preset", "fast", f"Settings: {', '.join(PRESETS)}.", flag_values=values)
    flags.DEFINE_list("landmarks", None, "Files with 68 points (.txt, .pts), one for each photo.", flag_values=values)
    flags.DEFINE_integer("face", None, "Which face, from 0, left to right; default: the largest.", flag_values=values)
    flags.DEFINE_bool("detail", True, "Completes the albedo with detail of the photos.", flag_values=values)
    flags.DEFINE_bool("hair", True, "With --detail: paints hair on the scalp as photos show it.", flag_values=values)
    flags.DEFINE_bool("help", False, "Shows this help.", short_name="h", flag_values=values)
    override = [argument for argument in rest if argument.startswith(("--config.", "-config."))]
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=["ganfit", *override])
        photos = values(["ganfit", *rest])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from None
    return photos, values, values.config


def progress() -> Any:
    """A progress bar over all steps of a stage, for `fit`'s callback."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def callback(stage: str, done: int, total: int, terms: dict[str, float]) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage, unit="step", dynamic_ncols=True)
        bars[stage].set_postfix_str(f"loss {terms['total']:.3f}", refresh=False)
        bars[stage].update(done - bars[stage].n)
        if done >= total:
            bars[stage].close()

    return callback


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that only the first run has to compile."""
    import jax

    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(root) / "ganfit-jax" / "xla"))
    # Hundreds of tiny programs add up to seconds: keep them too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit code. Raises `InputError` for what the user can mend."""
    started = time.perf_counter()
    photos, values, config = parse(arguments)
    if values.help:
        print(USAGE, end="\n\n")
        print(values.get_help())
        return 0
    if not photos:
        raise InputError("no photo was given, expected: ganfit PHOTO [PHOTO...] --output=DIR (see --help)")
    if not values.output:
        raise InputError("--output=: found nothing, expected a folder for the results")
    cache_compilations()
    from ganfit_jax.pipeline import fit_photos
    from ganfit_jax.results import keep_photos, prepare_folder, write_results

    folder = prepare_folder(values.output)
    keep_photos(photos, folder)
    begun = time.perf_counter() - started
    result = fit_photos(photos, config, values.landmarks, values.face, progress())
    seconds, albedo = {"start": begun, **result.seconds}, None
    if values.detail:
        from ganfit_jax.detail import with_detail

        clock = time.perf_counter()
        try:
            params, seen = result.fit.params, result.observations
            albedo = with_detail(result.models, params, result.photos, seen, hair=values.hair)
        except InputError as error:  # a photo that is gone by now must not cost the finished fit
            print(f"warning: no detail of the photos: {error}", file=sys.stderr)
        seconds["detail"] = time.perf_counter() - clock
    metrics = write_results(result._replace(seconds=seconds), folder, albedo)
    for photo, note in zip(result.photos, result.notes, strict=True):
        print(f"{photo}: {note}")
    for photo, figures in metrics["photos"].items():
        print(f"{photo}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items()))
    if not metrics["ok"]:
        print("warning: some steps were not finite and were left out")
    print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items()))
    print(f"results: {folder / 'report.html'}")
    return 0


def main() -> None:
    """Entry point of the command: one line and exit code 2 for bad input, 1 for a full disk, 130 when interrupted."""
    try:
        code = run(sys.argv[1:])
    except (InputError, OSError) as error:
        code = complain("ganfit", error)
    except KeyboardInterrupt:
        print("ganfit: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
