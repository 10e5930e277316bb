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
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self.save_args, self.restore_args = ocp.args.StandardSave, ocp.args.StandardRestore

    def save(self, step: int, state: GanState) -> None:
        """Writes in the background; a broken write leaves the checkpoint before it."""
        self.manager.save(step, args=self.save_args(flat(state)))

    def restore(self, state: GanState) -> tuple[int, GanState]:
        """The steps done and the newest state, like `state`; 0 and `state` itself where there is none."""
        step = self.manager.latest_step()
        if step is None:
            return 0, state
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), flat(state))
        try:
            arrays = self.manager.restore(step, args=self.restore_args(target))
        except (ValueError, KeyError, TypeError) as error:
            line = " ".join(str(error).split())[:200]
            where = self.manager.directory / str(step)
            raise InputError(f"{where}: not a state of these networks ({line}); expected the run's own") from None
        return step, jax.tree.unflatten(jax.tree.structure(state), [arrays[name] for name in flat(state)])

    def close(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()
        self.manager.close()
