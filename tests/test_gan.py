"""One training step, recomputed from its pieces; unseen texels teach nothing."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ganfit_jax import gan
from ganfit_jax.augment import augment
from ganfit_jax.gan import Settings

TINY = Settings(side=8, latent=6, base=32, widest=5, critic=1.0, encoder=4, average=40)
POLICY = ("colour", "translation", "cutout")
COUNT = 4


def draw_batch(seed=0, side=8, unseen=0.3):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(size=(COUNT, side, side)) * (rng.uniform(size=(COUNT, side, side)) > unseen)
    return gan.Batch(*(jnp.asarray(x, jnp.float32) for x in (rng.uniform(size=(COUNT, side, side, 3)), weight)))


def settings_of(**values):
    return Settings(**{**vars(TINY), **values})


@cache
def begun(settings):
    """Graphs and a state in which also the biases are random, on the host: `step` takes its state's memory."""
    graphs, state = gan.create(settings, 0)
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda x: x + 0.1 * np.float32(rng.normal(size=x.shape)), state.weights)
    return graphs, jax.device_get(state._replace(weights=weights))


def advance(settings, batch, alpha, change=lambda state: state, seed=2):
    """One step from the beginning, with everything before it."""
    graphs, state = begun(settings)
    before = jax.tree.map(jnp.array, change(state))
    kept = jax.tree.map(jnp.copy, before)
    after, losses = gan.step(before, batch, jax.random.key(seed), jnp.float32(alpha), graphs=graphs, settings=settings)
    return graphs, kept, after, {name: float(value) for name, value in losses.items()}


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("policy", [(), POLICY])
@pytest.mark.parametrize(
    ("alpha", "reconstruction", "paired"), [(0.4, 1.5, False), (1.0, 0.0, False), (0.4, 1.5, True)]
)
def test_the_losses_from_their_pieces(alpha, reconstruction, paired, policy):
    settings = settings_of(reconstruction=reconstruction, paired=paired, policy=policy)
    batch, half = draw_batch(), COUNT // 2
    graphs, before, after, found = advance(settings, batch, alpha)
    keys, blend = jax.random.split(jax.random.key(2), 7), jnp.float32(alpha)
    maps = np.concatenate([2 * np.asarray(batch.albedo) - 1, np.ones((COUNT, 8, 8, 1))], -1)
    maps = maps * np.asarray(batch.weight)[..., None]
    low = maps.reshape(COUNT, 4, 2, 4, 2, 4).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    faded = jnp.asarray((1 - alpha) * low + alpha * maps, jnp.float32)
    real = augment(keys[0], faded, policy)

    @partial(jax.jit, static_argnums=1)
    def painted(key, again):
        latents = jax.random.normal(key, (COUNT, settings.latent))
        if reconstruction:  # so many of the maps again, and mixtures of all
            small = jnp.asarray(maps.reshape(COUNT, 4, 2, 4, 2, 4).mean((2, 4)), jnp.float32)
            codes = nnx.merge(graphs.encoder, before.weights.encoder)(small, jnp.ones(()))
            mean = jnp.mean(codes, axis=0, keepdims=True)
            shares = jax.random.normal(key, (COUNT - again, COUNT))
            people = mean + jnp.dot(shares, codes - mean) / (COUNT - 1) ** 0.5
            latents = jnp.concatenate([codes[:again], people])
        images = nnx.merge(graphs.generator, before.weights.generator)(latents, 8, blend)
        return jnp.concatenate([images * faded[..., 3:], faded[..., 3:]], -1)

    @jax.jit
    def score(weights, images):
        return nnx.merge(graphs.critic, weights)(images, blend)[:, 0]

    fake = augment(keys[2], painted(keys[1], COUNT if paired else half), policy)
    of_real, of_fake = (np.asarray(score(before.weights.critic, x)) for x in (real, fake))
    assert found["distance"] == pytest.approx(of_real.mean() - of_fake.mean(), abs=1e-4)
    assert found["drift"] == pytest.approx((of_real**2).mean(), rel=1e-3, abs=1e-5)
    share = np.asarray(jax.random.uniform(keys[3], (COUNT,)))[:, None, None, None]
    between = jnp.asarray((1 - share) * np.asarray(real) + share * np.asarray(fake), jnp.float32)
    slope = np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(score(before.weights.critic, x))))(between))
    lengths = np.sqrt((slope**2).sum((1, 2, 3)))
    assert found["penalty"] == pytest.approx(((lengths - 1) ** 2).mean(), rel=1e-3)

    images = painted(keys[4], half)
    scores = score(after.weights.critic, augment(keys[5], images, policy))
    assert found["generator"] == pytest.approx(-float(jnp.mean(scores)), abs=1e-4)
    assert ("reconstruction" in found) == bool(reconstruction)
    if reconstruction:
        delta = np.abs(np.asarray(images - faded)[:half, ..., :3]).sum()
        expected = delta / (3 * np.asarray(faded)[:half, ..., 3].sum()) * 192**0.5
        assert found["reconstruction"] == pytest.approx(expected, rel=1e-3)


def test_what_the_critic_and_the_generator_go_down():
    """Adam's first step is the rate times the gradient's sign: each network goes against its own loss."""
    settings, batch, alpha = settings_of(rate=1e-5, drift=0.7, penalty=3.0), draw_batch(), 0.4
    _, before, after, first = advance(settings, batch, alpha)
    for old, new in zip(map(jax.tree.leaves, before.weights), map(jax.tree.leaves, after.weights), strict=True):
        moved = np.concatenate([np.ravel(b - a) for a, b in zip(old, new, strict=True)])
        assert 0 < np.abs(moved).max() < 1.2e-5 and np.mean(np.abs(moved) > 0.8e-5) > 0.8

    def change(name):
        """What the step of one network alone does to the losses, and what its gradient promises (L1: all steps are
        as long)."""
        moved = before.weights._replace(**{name: getattr(after.weights, name)})
        terms = advance(settings, batch, alpha, lambda _: before._replace(weights=moved))[3]
        gradient = jax.tree.leaves(getattr(after.moments, name).mu)
        return {n: terms[n] - first[n] for n in terms}, -1e-5 * sum(float(jnp.sum(jnp.abs(x))) for x in gradient)

    found, promised = change("critic")
    assert -found["distance"] + 3.0 * found["penalty"] + 0.7 * found["drift"] == pytest.approx(promised, rel=0.1)
    for name in ("generator", "encoder"):
        found, promised = change(name)
        assert found["generator"] + found["reconstruction"] == pytest.approx(promised, rel=0.2), name


def test_the_critic_s_own_pace():
    batch, moved = draw_batch(), {}
    for pace in (1.0, 5.0):
        _, before, after, _ = advance(settings_of(rate=1e-5, pace=pace), batch, 0.4)
        steps = jax.tree.map(lambda a, b: np.asarray(b - a), before.weights, after.weights)
        moved[pace] = [max(np.abs(x).max() for x in jax.tree.leaves(part)) for part in (steps.critic, steps.generator)]
    assert moved[1.0] == pytest.approx([1e-5, 1e-5], rel=0.05)
    assert moved[5.0] == pytest.approx([5e-5, 1e-5], rel=0.05)


def test_pairs_need_reconstructions():
    with pytest.raises(ValueError, match="paired"):
        gan.create(settings_of(paired=True, reconstruction=0.0), 0)


@pytest.mark.parametrize("policy", [(), POLICY])
@pytest.mark.parametrize("reconstruction", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_unseen_texels_teach_nothing(alpha, reconstruction, policy):
    """Other colours where the weight is 0 change no loss, no gradient (Adam's moments) and no weight, to the bit."""
    settings, batch = settings_of(reconstruction=reconstruction, policy=policy), draw_batch()
    other = jnp.where(batch.weight[..., None] == 0, 1.0 - 0.7 * batch.albedo, batch.albedo)
    assert np.mean(np.asarray(other != batch.albedo)) > 0.2
    *_, one, losses = advance(settings, batch, alpha)
    *_, two, others = advance(settings, batch._replace(albedo=other), alpha)
    assert losses == others
    same(one, two)
    seen = jnp.where(batch.weight[..., None] > 0, 1.0 - 0.7 * batch.albedo, batch.albedo)
    *_, others = advance(settings, batch._replace(albedo=seen), alpha)
    assert losses != others, "seen texels do teach"


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_critic_cannot_know_generated_maps_by_their_visibility(alpha):
    """A critic that reads nothing but the visibility finds no distance, in the middle of a fade too."""

    def blind(state):
        critic = jax.tree.map(np.array, state.weights.critic)
        for level in critic["colours"].values():
            level["kernel"][...][:, :, :3] = 0
        return state._replace(weights=state.weights._replace(critic=critic))

    *_, losses = advance(TINY, draw_batch(), alpha, blind)
    assert losses["distance"] == pytest.approx(0, abs=1e-5) and losses["drift"] > 1e-4


def test_a_fade_begins_with_the_losses_of_the_level_below():
    batch = draw_batch()
    maps = gan.shrink(gan.seen(2.0 * batch.albedo - 1.0, batch.weight))
    below = gan.Batch(0.5 + 0.5 * maps[..., :3] / jnp.maximum(maps[..., 3:], 1e-9), maps[..., 3])
    *_, losses = advance(TINY, batch, 0.0)
    *_, expected = advance(TINY, below, 1.0)
    for name in ("distance", "drift"):
        assert losses[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5)


def test_mixtures_have_the_mean_and_the_covariance_of_the_codes():
    codes = np.random.default_rng(5).normal(1.0, [0.5, 1.0, 2.0], (6, 3))
    codes[:, 2] += codes[:, 0]
    found = np.asarray(jax.jit(gan.mixtures, static_argnums=2)(jax.random.key(0), jnp.float32(codes), 200_000))
    assert found.shape == (200_000, 3)
    np.testing.assert_allclose(found.mean(0), codes.mean(0), atol=0.02)
    covariance = np.cov(codes.T)
    np.testing.assert_allclose(np.cov(found.T), covariance, rtol=0.02, atol=0.02)
    assert abs(covariance[0, 2]) > 0.1
    towards = (found - codes.mean(0)[None]) @ np.ones(3)
    assert np.mean(towards**4) / np.mean(towards**2) ** 2 == pytest.approx(3.0, abs=0.1), "normal"
    one = gan.mixtures(jax.random.key(0), jnp.float32(codes[:1]), 2)
    np.testing.assert_array_equal(one, np.float32(codes[:1]).repeat(2, 0))
    assert gan.mixtures(jax.random.key(0), jnp.float32(codes), 0).shape == (0, 3)


def test_mixtures_teach_the_encoder_nothing():
    """Its gradient (Adam's first moment without momentum) is that of its own maps, the mixtures held fixed."""
    batch, alpha = draw_batch(), jnp.float32(0.4)
    graphs, before, after, _ = advance(TINY, batch, 0.4)
    plain, key = gan.seen(2.0 * batch.albedo - 1.0, batch.weight), jax.random.split(jax.random.key(2), 7)[4]
    faded, small = gan.fade(plain, alpha), gan.shrink(plain)
    codes = nnx.merge(graphs.encoder, before.weights.encoder)(small, jnp.ones(()))
    drawn = gan.mixtures(key, codes, COUNT - COUNT // 2)

    @jax.jit
    @jax.grad
    def slope(encoder):
        codes = nnx.merge(graphs.encoder, encoder)(small, jnp.ones(()))
        latents = jnp.concatenate([codes[: COUNT // 2], drawn])
        images = nnx.merge(graphs.generator, before.weights.generator)(latents, 8, alpha)
        images = gan.seen(images, faded[..., 3])
        score = jnp.mean(nnx.merge(graphs.critic, after.weights.critic)(images, alpha))
        return gan.difference(images[: COUNT // 2], faded[: COUNT // 2]) - score

    expected = slope(before.weights.encoder)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected)) > 1e-3
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), after.moments.encoder.mu, expected)


def test_penalty_with_a_known_share():
    rng = np.random.default_rng(3)
    real, fake = (jnp.asarray(rng.normal(size=(3, 2, 2, 4)), jnp.float32) for _ in range(2))
    share = jnp.float32([0.0, 0.25, 1.0])
    towards = jnp.asarray(rng.normal(size=(1, 2, 2, 4)), jnp.float32)
    straight = gan.penalty(lambda x: jnp.sum(x * towards, axis=(1, 2, 3)), real, fake, share)
    assert float(straight) == pytest.approx((np.linalg.norm(towards) - 1) ** 2, rel=1e-5)
    curved = gan.penalty(lambda x: 0.5 * jnp.sum(x**2, axis=(1, 2, 3)), real, fake, share)
    mixed = [np.linalg.norm((1 - s) * r + s * f) for s, r, f in zip(*map(np.asarray, (share, real, fake)), strict=True)]
    assert float(curved) == pytest.approx(np.mean((np.array(mixed) - 1) ** 2), rel=1e-5)


@pytest.mark.parametrize("side", [4, 8, 32])
def test_difference_equals_plain_numpy(side):
    rng = np.random.default_rng(4)
    weight = rng.uniform(size=(2, side, side, 1)) * (rng.uniform(size=(2, side, side, 1)) > 0.3)
    a, b = (np.concatenate([rng.normal(size=(2, side, side, 3)) * weight, weight], -1) for _ in range(2))
    terms, delta, size = [], (a - b)[..., :3], side
    while True:
        terms.append(np.abs(delta).sum() / (3 * weight.sum()))
        if size <= 8:
            break
        size //= 2
        delta, weight = (x.reshape(2, size, 2, size, 2, -1).mean((2, 4)) for x in (delta, weight))
    assert len(terms) == (3 if side == 32 else 1)
    found = gan.difference(*(jnp.asarray(x, jnp.float32) for x in (a, b)))
    assert float(found) == pytest.approx((3 * side * side) ** 0.5 * np.mean(terms), rel=1e-4)


def test_difference_of_constant_maps_and_of_unseen_ones():
    weight = jnp.ones((1, 16, 16))
    grey, white = (gan.seen(jnp.full((1, 16, 16, 3), x), weight) for x in (0.0, 0.5))
    assert float(gan.difference(grey, white)) == pytest.approx(0.5 * 768**0.5, rel=1e-5)
    assert float(gan.difference(0.0 * grey, 0.0 * white)) == 0


def test_the_averaged_generator():
    _, before, after, _ = advance(TINY, draw_batch(), 1.0)
    keep = 0.5 ** (COUNT / 40)
    expected = jax.tree.map(lambda a, w: keep * a + (1 - keep) * w, before.average, after.weights.generator)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after.average, expected)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after.average, before.average)), strict=True))


def test_below_the_adversarial_side_only_maps_are_reconstructed():
    settings, batch = settings_of(adversarial=16), draw_batch()
    graphs, before, after, losses = advance(settings, batch, 0.4)
    assert losses.keys() == {"reconstruction"}
    same(before.weights.critic, after.weights.critic)
    same(before.moments.critic, after.moments.critic)
    plain = gan.seen(2.0 * batch.albedo - 1.0, batch.weight)
    codes = nnx.merge(graphs.encoder, before.weights.encoder)(gan.shrink(plain), jnp.ones(()))
    images = nnx.merge(graphs.generator, before.weights.generator)(codes, 8, jnp.float32(0.4))
    faded = gan.fade(plain, jnp.float32(0.4))
    expected = gan.difference(gan.seen(images, faded[..., 3]), faded)
    assert losses["reconstruction"] == pytest.approx(float(expected), rel=1e-3), "all maps of the batch take part"
    for name in ("generator", "encoder"):
        compared = advance(TINY, batch, 0.4)[2]
        for moments, momentum in ((getattr(after.moments, name), 0.9), (getattr(compared.moments, name), 0.0)):
            for mu, nu in zip(*map(jax.tree.leaves, (moments.mu, moments.nu)), strict=True):
                np.testing.assert_allclose(mu**2, (1 - momentum) ** 2 / 0.01 * nu, rtol=1e-3, atol=1e-12)
    with pytest.raises(ValueError, match="adversarial = 16: expected 4"):
        gan.create(settings_of(adversarial=16, reconstruction=0.0), 0)


def test_without_reconstruction_there_is_no_encoder():
    graphs, state = gan.create(settings_of(reconstruction=0.0), 0)
    assert graphs.encoder is None and state.weights.encoder is None and state.moments.encoder is None
    graphs, state = gan.create(TINY, 0)
    assert state.weights.encoder is not None
    codes = gan.encode(
        graphs.encoder, state.weights.encoder, jnp.ones((2, 8, 8, 4)), 4, jnp.float32(0.3), gan.dtype(TINY)
    )
    assert codes.shape == (2, 6)


def test_the_policy_is_applied_to_both_and_the_encoder_sees_the_plain_map(monkeypatch):
    settings, calls = settings_of(policy=("cutout",)), []

    def noted(key, images, policy):
        calls.append(policy)
        return images

    monkeypatch.setattr(gan, "augment", noted)
    *_, losses = advance(settings, draw_batch(), 0.4)
    assert calls == [("cutout",)] * 3, "real maps, generated maps for the critic, generated maps for the generator"
    monkeypatch.undo()
    *_, others = advance(TINY, draw_batch(), 0.4)
    assert losses == pytest.approx(others, rel=1e-4, abs=1e-5)


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="augmentation 'blur', expected some of colour"):
        advance(settings_of(policy=("blur",)), draw_batch(), 1.0)


@pytest.mark.slow
def test_bfloat16_comes_near_float32():
    *_, exact = advance(TINY, draw_batch(), 0.4)
    *_, rough = advance(settings_of(bfloat16=True), draw_batch(), 0.4)
    assert rough != exact
    for name, value in exact.items():
        assert rough[name] == pytest.approx(value, rel=0.05, abs=0.05), name


@pytest.mark.slow
def test_step_learns_a_single_map():
    """A hundred steps on one map: the generator gives it back far better than at first."""
    settings = settings_of(reconstruction=5.0, rate=0.01)
    batch = jax.tree.map(lambda x: jnp.repeat(x[:1], COUNT, 0), draw_batch())
    graphs, state = begun(settings)
    state, trace = jax.tree.map(jnp.array, state), []
    for number in range(100):
        key = jax.random.fold_in(jax.random.key(0), number)
        state, losses = gan.step(state, batch, key, jnp.float32(1.0), graphs=graphs, settings=settings)
        trace.append(float(losses["reconstruction"]))
    assert np.isfinite(trace).all() and np.mean(trace[-10:]) < 0.5 * np.mean(trace[:3])
