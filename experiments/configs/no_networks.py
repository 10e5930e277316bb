"""The fit without any recognition network: landmarks and colours only (the ablation without identity and content).

    ganfit me.jpg --output=out --config=experiments/configs/no_networks.py

Expected: about half the time of the default; geometry as good, likeness in other views clearly worse.
"""

from ganfit_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.weights.identity = config.weights.second_identity = config.weights.content = 0.0
    return config
