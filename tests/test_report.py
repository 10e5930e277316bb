import base64
import http.server
import queue
import re
import shutil
import subprocess
import threading
import urllib.parse

import numpy as np
import pytest
from test_export import INFOS, NAMES, WEIGHTS, chequer, tiny_face

from ganfit_jax import gltf, picture, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--window-size=1000,900"),
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


def browse(text, profile):
    """Opens a page in Chromium and waits until it moves on to /result; returns that address's query."""
    answers = queue.Queue()

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            address = urllib.parse.urlsplit(self.path)
            if address.path == "/result":
                answers.put(dict(urllib.parse.parse_qsl(address.query)))
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode() if address.path == "/" else b"")

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                return answers.get(timeout=120)
            finally:
                browser.terminate()
                server.shutdown()


PROBE = """<script>
(async () => {
  const root = document.getElementById("viewer"), canvas = root.querySelector("canvas");
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  while (root.dataset.state === "loading") await frame();
  const find = (name) => root.querySelector(`[name=${name}]`);
  const slide = (input, value) => { input.value = value; input.dispatchEvent(new Event("input")); };
  const pointer = (kind, x, y, more) =>
    canvas.dispatchEvent(new PointerEvent(kind, { pointerId: 1, clientX: x, clientY: y, ...more }));
  canvas.setPointerCapture = () => {};
  const drag = (more) => {
    pointer("pointerdown", 100, 100, more);
    pointer("pointermove", 160, 120, more);
    pointer("pointerup", 160, 120, more);
  };
  const jaw = root.querySelector(".sliders input");
  const back = () => {
    canvas.dispatchEvent(new MouseEvent("dblclick"));
    find("fitted").click();
    slide(find("azimuth"), 30);
    slide(find("ambient"), 0.45);
    if (!find("texture").checked) find("texture").click();
    if (find("wireframe").checked) find("wireframe").click();
  };
  const actions = {
    turn: () => drag({}), move: () => drag({ shiftKey: true }),
    wheel: () => canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -300 })),
    key: () => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" })),
    light: () => slide(find("azimuth"), -90), ambient: () => slide(find("ambient"), 0.9),
    texture: () => find("texture").click(), wireframe: () => find("wireframe").click(),
    expression: () => slide(jaw, 1), neutral: () => find("neutral").click(),
  };
  const result = { state: root.dataset.state, message: root.querySelector(".message").textContent };
  result.names = [...root.querySelectorAll(".sliders span")].map((span) => span.textContent).join(" ");
  await frame();
  const start = canvas.toDataURL();
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
  let green = 0;
  for (let i = 0; i < pixels.length; i += 4) green += pixels[i + 1] > Math.max(pixels[i], pixels[i + 2]) + 60;
  result.green = (4 * green) / pixels.length;
  for (const [name, act] of Object.entries(actions)) {
    act(); await frame();
    const changed = canvas.toDataURL() !== start;
    back(); await frame();
    result[name] = changed ? (canvas.toDataURL() === start ? "ok" : "stays changed") : "changes nothing";
  }
  location.href = "/result?" + new URLSearchParams(result);
})();
</script></body>"""
ACTIONS = ("turn", "move", "wheel", "key", "light", "ambient", "texture", "wireframe", "expression", "neutral")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent")
def test_viewer_in_a_browser(page, tmp_path):
    """The 3D view shows the face, and every control changes the picture and back again."""
    path, _ = page
    result = browse(path.read_text(encoding="utf-8").replace("</body>", PROBE), tmp_path / "profile")
    assert result["state"] == "ready", result.get("message")
    assert tuple(result["names"].split()) == NAMES
    assert float(result["green"]) > 0.1
    assert {name: result[name] for name in ACTIONS} == dict.fromkeys(ACTIONS, "ok")
