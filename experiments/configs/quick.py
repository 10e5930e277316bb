"""A first look in a third of the time: smaller window, fewer steps.

    ganfit me.jpg --output=out --config=experiments/configs/quick.py

Expected: about a third of the default's time, and renders that are less like the person.
"""

from ganfit_jax.config import Config


def get_config() -> Config:
    config = Config(size=192)
    config.second.size = 128
    config.align.steps, config.colour.steps, config.full.steps = 60, 50, 30
    return config
