"""Checkpoints of a texture GAN's training: whole or not at all, whenever the run is killed."""

from pathlib import Path

import jax
from jaxtyping import Array

from ganfit_jax.errors import InputError
from ganfit_jax.gan import GanState


def flat(state: GanState) -> dict[str, Array]:
    """The state's arrays by name."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


class Checkpoints:
    """The newest states of a run, kept by orbax under a folder."""

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        handler = ocp.StandardCheckpointHandler()
        self.manager = ocp.CheckpointManager(folder.absolute(), item_handlers=handler, options=options)
        self.save_args, self.restore_args = ocp.args.StandardSave, ocp.args.StandardRestore

    def save(self, step: int, state: GanState) -> None:
        """Writes in the background; a broken write leaves the checkpoint before it."""
        self.manager.save(step, args=self.save_args(flat(state)))

    def restore(self, state: GanState) -> tuple[int, GanState]:
        """The steps done and the newest state, like `state`; 0 and `state` itself where there is none.

        InputError where it is a state of other networks.
        """
        step = self.manager.latest_step()
        if step is None:
            return 0, state
        wanted = {name: (leaf.shape, leaf.dtype) for name, leaf in flat(state).items()}
        found = {name: (leaf.shape, leaf.dtype) for name, leaf in self.manager.item_metadata(step).tree.items()}
        if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
            shapes = [list(table[wrong[0]][0]) if wrong[0] in table else "none" for table in (found, wanted)]
            raise InputError(
                f"{self.manager.directory / str(step)}: not a state of these networks: {len(wrong)} arrays differ, "
                f"the first is {wrong[0]}: found {shapes[0]}, expected {shapes[1]}"
            )
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), flat(state))
        arrays = self.manager.restore(step, args=self.restore_args(target))
        return step, jax.tree.unflatten(jax.tree.structure(state), [arrays[name] for name in flat(state)])

    def close(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()
        self.manager.close()
