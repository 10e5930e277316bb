import base64
import re
import shutil
import subprocess

import imageio.v3 as iio
import numpy as np
import pytest
from test_export import INFOS, NAMES, WEIGHTS, chequer, tiny_face

from ganfit_jax import gltf, picture, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--window-size=1000,900", "--virtual-time-budget=8000"),
)


@pytest.fixture
def page(tmp_path):
    """A report whose pictures are grey, so that only the 3D view is green."""
    face = tiny_face()
    green = np.broadcast_to(np.array([0.05, 0.9, 0.1], np.float32), chequer().shape)
    glb = gltf.glb_bytes(face, face.mean, WEIGHTS, green, NAMES, morph_normals=False)
    picture.losses_plot({"pixel": np.ones(3)}, tmp_path / "losses.png")
    grey = np.full((32, 32, 3), 0.5)
    strip = picture.comparison(grey, grey, grey, grey)
    report.write_report(
        tmp_path / "report.html",
        title="<script>alert(1)</script> & {{glb}}",
        photos=[report.ReportPhoto(f'a"{i}<b>.jpg', grey, grey, strip) for i in range(2)],
        metrics={"identity": {"distance": 0.21812345}, "ok": True},
        config={"stages": [{"steps": 50}, {"steps": 100}], "note": "</table>"},
        infos=INFOS,
        losses=(tmp_path / "losses.png").read_bytes(),
        glb=glb,
    )
    return tmp_path / "report.html", glb


def test_report_is_complete_escaped_and_self_contained(page):
    path, glb = page
    text = path.read_text(encoding="utf-8")
    embedded = re.search(r'<script type="text/plain" id="glb">([^<]*)</script>', text)
    assert embedded and base64.b64decode(embedded[1]) == glb
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; {{glb}}" in text
    assert "a&quot;1&lt;b&gt;.jpg" in text and "&lt;/table&gt;" in text
    assert "<td>identity.distance</td><td>0.2181</td>" in text
    assert "<td>stages.1.steps</td><td>100</td>" in text
    for info in INFOS.values():
        assert info.sha256 in text and info.licence in text
    assert text.count('src="data:image/png;base64,') == 7
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text


def browse(page, profile, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent")
def test_viewer_draws_the_face_in_a_browser(page, tmp_path):
    path, _ = page
    document = browse(path, tmp_path / "profile", "--dump-dom")
    assert 'data-state="ready"' in document, re.findall(r'class="message"[^<]*<', document)
    sliders = re.findall(r"<span>(\w+)</span><input type=\"range\"", document)
    assert tuple(sliders) == NAMES
    browse(path, tmp_path / "profile", f"--screenshot={tmp_path / 'shot.png'}")
    red, green, blue = np.moveaxis(iio.imread(tmp_path / "shot.png")[..., :3].astype(int), -1, 0)
    assert np.mean((green > red + 60) & (green > blue + 60)) > 0.03
