"""What can be evaluated: people with scans and photos, synthetic people, a scanned head; and one way to run it all."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ganfit_jax import cases, energy, evaluation, gallery, geometry, likeness, phases, plots, scans, subjects
from ganfit_jax.assets import load_texture
from ganfit_jax.cases import Case
from ganfit_jax.errors import InputError
from ganfit_jax.fit import as_arrays
from ganfit_jax.gallery import Row
from ganfit_jax.likeness import Seen
from ganfit_jax.measure import ARRAYS, MEAN, OURS, SIDE, Person, Tools, measure, read_person, settings_of
from ganfit_jax.protocols import Field
from ganfit_jax.scans import Marked

Tables = dict[str, list[dict[str, Any]]]
Shown = tuple[Tables, dict[str, str]]  # tables; title of a plot -> its file


class Task(NamedTuple):
    """Items to measure one by one, and what is said of all of them."""

    title: str
    names: list[str]
    work: Callable[[str, Path], Row]  # measures an item into its folder
    finish: Callable[[dict[str, Row], Path], Shown]  # writes plots into the folder
    settings: Callable[[str], str]  # of an item: what its figures depend on
    failed: Mapping[str, str]  # what cannot be measured, and why
    needs: tuple[str, ...]  # files that an item must have left in its folder


def run(task: Task, output: Path, command: str, progress: Callable[[list[str]], Iterable[str]]) -> bool:
    """Measures what has not been measured yet, writes the page and prints the tables; False if nothing succeeded."""

    def one(name: str) -> Row:
        folder = output / name
        return gallery.kept(folder, lambda: task.work(name, folder), task.settings(name), task.needs)

    rows, broken = evaluation.attempt(progress(task.names), one)
    failed = {**task.failed, **broken}
    tables, made = task.finish(rows, output) if rows else ({}, {})
    gallery.write_gallery(output, task.title, rows, failed, tables, made, command)
    for title, table in tables.items():
        print(f"\n{title}\n\n{gallery.markdown_table(table)}")
    for name, reason in failed.items():
        print(f"\nfailed: {name}: {reason}")
    print(f"\nresults: {output / 'index.html'}")
    return bool(rows)


def people_task(title: str, chosen: Iterable[Case], failed: Mapping[str, str], tools: Tools) -> Task:
    """The fits of people against their scans and photos."""
    by_name = {case.name: case for case in chosen}

    def work(name: str, folder: Path) -> Row:
        try:
            return measure(by_name[name], tools, folder)
        except InputError as error:
            raise InputError(f"{by_name[name].source}: {error}") from None

    def finish(rows: dict[str, Row], output: Path) -> Shown:
        people = {name: read_person(row, output / name) for name, row in rows.items()}
        return tables_and_plots(people, {name: case.group for name, case in by_name.items()}, tools, output)

    return Task(
        title, list(by_name), work, finish, lambda name: settings_of(by_name[name], tools), dict(failed), (ARRAYS,)
    )


def plain_task(
    title: str,
    names: list[str],
    work: Callable[[str, Path], Row],
    settings: str,
    finish: Callable[[dict[str, Row], Path], Shown],
) -> Task:
    """A task whose rows hold all its figures."""
    return Task(title, names, work, finish, lambda name: settings, {}, ())


def example_cases(folder: Path, photo: Path, people: int, tools: Tools) -> tuple[list[Case], dict[str, str]]:
    """A photo, and synthetic people rendered on the spot with their true faces as scans: written as a manifest into the
    folder, and read from there."""
    draw = jax.jit(evaluation.photograph, static_argnames=("photo", "size"))
    drawn = tools.models._replace(texture=load_texture("albedo")[0])  # the same people for all texture models
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(cases.REQUIRED), f"{photo.stem},{photo.resolve()},,"]
    for number in range(people):
        name = f"person_{number}"
        item = subjects.synthetic_item(
            folder / name, drawn, draw, tools.find, 1000 + number, as_arrays(evaluation.VIEWS)
        )
        if item.truth is None:
            raise InputError(f"{folder / name}: no truth, expected what was written there")
        scans.write_scan(folder, name, Marked(item.truth.surface, np.asarray(item.truth.landmarks, np.float64)))
        lines.append(f"{name},{name}/{item.photos[0].name},{name}.obj,{name}.ljson")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return cases.manifest_cases(folder / "manifest.csv")


def tables_and_plots(people: Mapping[str, Person], groups: Mapping[str, str], tools: Tools, output: Path) -> Shown:
    """The tables of many people, and their plots, written into `output`."""
    methods = [OURS, MEAN, *(rival.name for rival in tools.rivals)]
    tables: Tables = {}
    made: dict[str, str] = {}
    measured = {name: each for name, each in people.items() if each.fields}
    present = [m for m in methods if any(m in each.fields for each in measured.values())]
    common = {name: each for name, each in measured.items() if all(m in each.fields for m in present)}
    for title, chosen in {"Geometry": measured, f"Geometry, the {len(common)} that every method has": common}.items():
        if not chosen or (chosen is common and len(common) == len(measured)):
            continue
        fields: dict[str, list[Field]] = {}
        for name, each in chosen.items():
            for method, field in each.fields.items():
                fields.setdefault(f"{groups[name]} {method}", []).append(field)
        tables[title] = geometry.table({n: p.row.figures for n, p in chosen.items()}, groups, methods, fields)
    if common:
        values, areas = (
            {m: np.concatenate([each.fields[m][part] for each in common.values()]) for m in present} for part in (0, 1)
        )
        plots.cumulative_curve(output / "now.png", values, weights=areas)
        made["Distance from scan to mesh (NoW)"] = "now.png"
    metric = tools.judge.spec.metric
    photos = likeness.joined([Seen((name,) * len(p.seen["photo"]), p.seen["photo"]) for name, p in people.items()])
    found = {}
    for kind in (MEAN, OURS, SIDE, *methods[2:]):
        if shown := [Seen((n,) * len(p.seen[kind]), p.seen[kind]) for n, p in people.items() if kind in p.seen]:
            found[kind] = likeness.judged(likeness.joined(shown), photos, metric)
    own = "" if tools.judge.spec.name != energy.recogniser_of(tools.models).spec.name else ", which the fit used"
    tables[f"Identity, judged by {tools.judge.spec.name}{own}"] = [
        {"render": kind, **likeness.table_row(each, metric)} for kind, each in found.items()
    ]
    sign, label = (1, "cosine") if metric == "cosine" else (-1, "distance")
    sets = {"fit, same person": sign * found[OURS].same, "fit, different people": sign * found[OURS].different}
    plots.histograms(output / "identity.png", {"mean face, same person": sign * found[MEAN].same, **sets}, label)
    made["Renders and photos"] = "identity.png"
    if costs := [p.phases for p in people.values() if p.phases]:
        tables[phases.TITLE] = phases.table(costs)
    return tables, made
