"""From files to a fit: models, observations, and the errors of the door."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ganfit_jax import pipeline
from ganfit_jax.config import Config
from ganfit_jax.detectors import detector
from ganfit_jax.errors import InputError
from ganfit_jax.landmarks import write_points
from ganfit_jax.photo import read_photo
from ganfit_jax.recognition import features
from ganfit_jax.types import ModelInfo

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "astronaut.png"


@pytest.fixture(scope="module")
def loaded():
    return pipeline.load_models(Config())


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    found = detector("dlib").detect(read_photo(PHOTO))
    file = tmp_path_factory.mktemp("points") / "astronaut.pts"
    write_points(file, max(found, key=lambda face: np.ptp(face.landmarks)).landmarks)
    return file


def test_built_in_models_and_where_they_came_from(loaded):
    models, infos = loaded
    assert infos.keys() == {"shape", "texture", "recogniser"}
    assert all(isinstance(info, ModelInfo) and len(info.sha256) == 64 and info.licence for info in infos.values())
    assert models.recogniser is not None and models.recogniser.spec.name == "dlib"
    stiff = dict(zip(infos["shape"].expressions, np.asarray(models.stiffness), strict=True))
    assert stiff["jawForward"] == Config().stiffness and stiff["eyeLookUpLeft"] == Config().stiffness
    assert stiff["jawOpen"] == 1


def test_the_switch_of_the_moving_jaw_line_reaches_the_model(loaded):
    still, _ = pipeline.load_models(Config(moving_jaw=False))
    assert still.shape.contour_faces.shape == (17, 1) != loaded[0].shape.contour_faces.shape


@pytest.mark.parametrize("field", ["shape_model", "texture_model", "recogniser"])
def test_a_missing_model_is_one_line_that_names_it(field):
    with pytest.raises(InputError, match=r"nothing\.npz") as caught:
        pipeline.load_models(Config(**{field: "nothing.npz"}))
    assert "\n" not in str(caught.value)


def test_a_saturation_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match=r"--config\.saturation=0\.0: expected more than 0"):
        pipeline.check(Config(saturation=0.0))


def test_wrong_numbers_of_files():
    with pytest.raises(InputError, match="no photo was given"):
        pipeline.fit_photos([])
    with pytest.raises(InputError, match="2 landmark files for 1 photos"):
        pipeline.fit_photos([PHOTO], landmarks=["a.pts", "b.pts"])


def test_a_photo_becomes_an_observation_whose_mask_leaves_out_hair(loaded):
    models, _ = loaded
    seen, note = pipeline.observe_photo(PHOTO, models._replace(recogniser=None), Config(), detector("dlib"))
    assert seen.image.shape == (256, 256, 3) and seen.features is None
    assert "dlib" in note
    nose = np.asarray(seen.landmarks[30], int)
    assert seen.mask[nose[1], nose[0]] == 1
    assert 0.1 < float(seen.mask.mean()) < 0.8


def test_a_short_fit_with_given_landmarks(loaded, points, tiny_recogniser):
    models, infos = loaded
    models = models._replace(recogniser=tiny_recogniser)
    config = Config(size=96, chunk=4)
    config.align.steps, config.colour.steps, config.full.steps = 8, 0, 0
    size = read_photo(PHOTO).shape
    find = pipeline.points_detector(points, (size[1], size[0]))
    calls = []
    result = pipeline.fit_with(models, infos, [PHOTO, PHOTO], config, find, callback=lambda *c: calls.append(c[:3]))
    assert calls == [("align", 4, 8), ("align", 8, 8)]
    assert result.photos == (str(PHOTO),) * 2 and len(result.notes) == 2
    assert result.observations.image.shape == (2, 96, 96, 3)
    assert bool(result.fit.ok) and result.fit.params.views.expression.shape[0] == 2
    assert result.seconds.keys() == {"observe", "fit"}
    trace = result.fit.trace["align/landmark"]
    assert trace[-1] < trace[0]
    chip = jnp.full((32, 32, 3), 0.5)
    assert result.observations.features.embedding.shape == (2, *features(tiny_recogniser, chip).embedding.shape)
