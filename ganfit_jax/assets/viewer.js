// A small viewer for the GLB files of ganfit-jax: orbit, light, morph targets. Plain WebGL2, no dependencies.
"use strict";

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec2 uv;
uniform mat4 clip; uniform float lift; out vec3 world; out vec3 bent; out vec2 texel;
void main() { world = position; bent = normal; texel = uv; gl_Position = clip * vec4(position, 1.0);
  gl_Position.z -= lift * gl_Position.w; }`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 world; in vec3 bent; in vec2 texel;
uniform sampler2D albedo; uniform vec3 eye; uniform vec3 light; uniform float key; uniform float ambient;
uniform int mode;  // 0 texture, 1 grey, 2 lines
out vec4 colour;
vec3 encode(vec3 c) { return mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c)); }
void main() {
  if (mode == 2) { colour = vec4(0.03, 0.15, 0.32, 0.4); return; }
  vec3 view = normalize(eye - world);
  vec3 n = normalize(bent);
  if (!gl_FrontFacing) n = -n;
  vec3 base = mode == 0 ? texture(albedo, texel).rgb : vec3(0.5);
  float sky = ambient * (0.85 + 0.15 * n.y);
  float lit = key * max(dot(n, light), 0.0);
  float gloss = 0.06 * key * pow(max(dot(n, normalize(light + view)), 0.0), 24.0) * step(0.0, dot(n, light));
  colour = vec4(encode(clamp(base * (sky + lit) + gloss, 0.0, 1.0)), 1.0);
}`;

// --- reading -------------------------------------------------------------------------------------------------------

function readGlb(buffer) {
  const head = new DataView(buffer);
  const jsonLength = head.getUint32(12, true);
  const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, jsonLength)));
  const start = 28 + jsonLength;
  const width = { SCALAR: 1, VEC2: 2, VEC3: 3 };
  const kind = { 5126: Float32Array, 5125: Uint32Array, 5123: Uint16Array };
  const slice = (view, type, count) =>
    new kind[type](buffer.slice(start + gltf.bufferViews[view].byteOffset), 0, count);
  const dense = (id) => {
    const a = gltf.accessors[id];
    return slice(a.bufferView, a.componentType, a.count * width[a.type]);
  };
  const sparse = (id) => {
    const s = gltf.accessors[id].sparse;
    if (!s) return { indices: [], values: [] };
    return {
      indices: slice(s.indices.bufferView, s.indices.componentType, s.count),
      values: slice(s.values.bufferView, 5126, s.count * 3),
    };
  };
  const mesh = gltf.meshes[0];
  const part = mesh.primitives[0];
  const picture = gltf.bufferViews[gltf.images[0].bufferView];
  return {
    positions: dense(part.attributes.POSITION),
    uv: dense(part.attributes.TEXCOORD_0),
    indices: new Uint32Array(dense(part.indices)),
    targets: part.targets.map((t) => sparse(t.POSITION)),
    names: mesh.extras.targetNames,
    weights: mesh.weights,
    image: new Blob([new Uint8Array(buffer, start + picture.byteOffset, picture.byteLength)], { type: "image/png" }),
  };
}

// --- geometry ------------------------------------------------------------------------------------------------------

function weld(positions) {
  // Vertices split along UV seams share one normal: each points to the first vertex at its place.
  const first = new Map();
  return Uint32Array.from({ length: positions.length / 3 }, (_, i) => {
    const place = `${positions[3 * i]},${positions[3 * i + 1]},${positions[3 * i + 2]}`;
    if (!first.has(place)) first.set(place, i);
    return first.get(place);
  });
}

function morph(face, weights, out) {
  out.set(face.positions);
  face.targets.forEach(({ indices, values }, k) => {
    if (!weights[k]) return;
    for (let i = 0; i < indices.length; i++)
      for (let c = 0; c < 3; c++) out[3 * indices[i] + c] += weights[k] * values[3 * i + c];
  });
}

function normals(face, p, out) {
  out.fill(0);
  const { indices, welded } = face;
  for (let i = 0; i < indices.length; i += 3) {
    const a = 3 * indices[i], b = 3 * indices[i + 1], c = 3 * indices[i + 2];
    const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
    const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
    const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
    for (let j = 0; j < 3; j++) {
      const at = 3 * welded[indices[i + j]];
      out[at] += nx; out[at + 1] += ny; out[at + 2] += nz;
    }
  }
  for (let i = welded.length - 1; i >= 0; i--)
    for (let c = 0; c < 3; c++) out[3 * i + c] = out[3 * welded[i] + c];
}

function edges(indices) {
  const seen = new Set(), lines = [];
  for (let i = 0; i < indices.length; i += 3)
    for (let j = 0; j < 3; j++) {
      const a = indices[i + j], b = indices[i + ((j + 1) % 3)];
      const key = Math.min(a, b) * 16777216 + Math.max(a, b);
      if (!seen.has(key)) { seen.add(key); lines.push(a, b); }
    }
  return Uint32Array.from(lines);
}

// --- camera --------------------------------------------------------------------------------------------------------

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => a.map((x) => x / Math.hypot(...a));
const direction = (azimuth, elevation) => [
  Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation), Math.cos(azimuth) * Math.cos(elevation),
];

function cameraOf(orbit, aspect) {
  const back = direction(orbit.azimuth, orbit.elevation);
  const right = unit(cross([0, 1, 0], back)), up = cross(back, right);
  const distance = orbit.radius / Math.min(1, aspect) / orbit.zoom;
  const target = orbit.centre.map((x, i) => x - orbit.pan[0] * right[i] - orbit.pan[1] * up[i]);
  const eye = target.map((x, i) => x + distance * back[i]);
  const near = distance / 20, far = distance * 4, f = 1 / Math.tan(Math.PI / 15);  // 24 degrees from top to bottom
  const z = (far + near) / (near - far), w = (2 * far * near) / (near - far);
  const row = (axis, scale) => [...axis.map((x) => x * scale), -dot(axis, eye) * scale];
  const rows = [row(right, f / aspect), row(up, f), row(back, z), row(back, -1)];
  rows[2][3] += w;
  const clip = new Float32Array(16);
  rows.forEach((r, i) => r.forEach((x, j) => (clip[4 * j + i] = x)));
  return { clip, eye, right, up, distance };
}

// --- drawing -------------------------------------------------------------------------------------------------------

function compile(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  return program;
}

async function showFace(root, buffer) {
  const canvas = root.querySelector("canvas");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, preserveDrawingBuffer: true });
  if (!gl) throw new Error("this browser offers no WebGL2");
  const face = readGlb(buffer);
  face.welded = weld(face.positions);
  const program = compile(gl);
  const place = (name) => gl.getUniformLocation(program, name);
  const uniform = Object.fromEntries(["clip", "eye", "light", "key", "ambient", "mode", "lift"].map((n) => [n, place(n)]));
  const attribute = (name, width) => {
    const at = gl.getAttribLocation(program, name), store = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, store);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, gl.FLOAT, false, 0, 0);
    return (data) => { gl.bindBuffer(gl.ARRAY_BUFFER, store); gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW); };
  };
  const put = { position: attribute("position", 3), normal: attribute("normal", 3), uv: attribute("uv", 2) };
  put.uv(face.uv);
  const lines = edges(face.indices);
  const [triangleStore, lineStore] = [face.indices, lines].map((data) => {
    const store = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, store);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return store;
  });
  const bitmap = await createImageBitmap(face.image, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  gl.enable(gl.DEPTH_TEST);

  const moved = new Float32Array(face.positions.length), bent = new Float32Array(face.positions.length);
  let weights = [...face.weights], dirty = true, camera = null;
  const box = [0, 1, 2].map((c) => {
    const values = face.positions.filter((_, i) => i % 3 === c);
    return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  });
  const front = { azimuth: 0.35, elevation: 0.06, zoom: 1, pan: [0, 0] };
  const orbit = {
    ...structuredClone(front), centre: box.map(([a, b]) => (a + b) / 2),
    radius: 0.58 * (box[1][1] - box[1][0]) / Math.tan(Math.PI / 15),
  };
  const control = (name) => root.querySelector(`[name=${name}]`);

  function draw() {
    if (dirty) {
      morph(face, weights, moved);
      normals(face, moved, bent);
      put.position(moved);
      put.normal(bent);
      dirty = false;
    }
    const scale = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    camera = cameraOf(orbit, canvas.width / canvas.height);
    const radians = (name) => (control(name).value * Math.PI) / 180;
    gl.uniformMatrix4fv(uniform.clip, false, camera.clip);
    gl.uniform3fv(uniform.eye, camera.eye);
    gl.uniform3fv(uniform.light, direction(radians("azimuth"), radians("elevation")));
    gl.uniform1f(uniform.key, 1 - control("ambient").value);
    gl.uniform1f(uniform.ambient, control("ambient").value);
    gl.uniform1i(uniform.mode, control("texture").checked ? 0 : 1);
    gl.uniform1f(uniform.lift, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, triangleStore);
    gl.drawElements(gl.TRIANGLES, face.indices.length, gl.UNSIGNED_INT, 0);
    if (control("wireframe").checked) {
      gl.uniform1i(uniform.mode, 2);
      gl.uniform1f(uniform.lift, 0.0003);  // about 2 mm towards the eye, in front of the surface that they lie on
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, lineStore);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.drawElements(gl.LINES, lines.length, gl.UNSIGNED_INT, 0);
      gl.disable(gl.BLEND);
    }
  }
  let waiting = 0;
  const redraw = () => { waiting = waiting || requestAnimationFrame(() => { waiting = 0; draw(); }); };

  steer(canvas, orbit, () => camera, redraw, () => Object.assign(orbit, structuredClone(front)));
  root.querySelectorAll(".view input").forEach((input) => input.addEventListener("input", redraw));
  const reweigh = (next) => { weights = next; dirty = true; redraw(); };
  expressionPanel(root.querySelector(".expressions"), face, reweigh);
  new ResizeObserver(redraw).observe(canvas);
  draw();
}

// --- controls ------------------------------------------------------------------------------------------------------

function steer(canvas, orbit, camera, redraw, reset) {
  const fingers = new Map();
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const turn = (dx, dy) => {
    orbit.azimuth -= dx;
    orbit.elevation = clamp(orbit.elevation + dy, -1.5, 1.5);
  };
  const zoom = (factor) => { orbit.zoom = clamp(orbit.zoom * factor, 0.3, 12); };
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, { x: e.clientX, y: e.clientY });
  });
  canvas.addEventListener("pointermove", (e) => {
    const last = fingers.get(e.pointerId);
    if (!last) return;
    const dx = e.clientX - last.x, dy = e.clientY - last.y;
    const before = fingers.size === 2 ? spread() : 0;
    Object.assign(last, { x: e.clientX, y: e.clientY });
    if (fingers.size === 2) zoom(spread() / Math.max(before, 1));
    else if (e.shiftKey || e.buttons & 6) {
      const metres = (2 * Math.tan(Math.PI / 15) * camera().distance) / canvas.clientHeight;
      orbit.pan[0] += dx * metres;
      orbit.pan[1] -= dy * metres;
    } else turn(dx * 0.008, dy * 0.008);
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom(Math.exp(-e.deltaY * 0.001));
    redraw();
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { reset(); redraw(); });
  const keys = {
    ArrowLeft: () => turn(0.1, 0), ArrowRight: () => turn(-0.1, 0), ArrowUp: () => turn(0, -0.1),
    ArrowDown: () => turn(0, 0.1), "+": () => zoom(1.1), "-": () => zoom(1 / 1.1), 0: reset,
  };
  canvas.addEventListener("keydown", (e) => {
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
    redraw();
  });
}

function expressionPanel(panel, face, reweigh) {
  const sliders = face.names.map((name, k) => {
    const label = document.createElement("label"), text = document.createElement("span");
    const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, step: 0.01 });
    text.textContent = name;
    label.append(text, input);
    panel.querySelector(".sliders").append(label);
    input.value = face.weights[k];
    input.addEventListener("input", () => reweigh(sliders.map((s) => Number(s.value))));
    return input;
  });
  const set = (values) => { sliders.forEach((s, k) => (s.value = values[k])); reweigh([...values]); };
  panel.querySelector("[name=fitted]").addEventListener("click", () => set(face.weights));
  panel.querySelector("[name=neutral]").addEventListener("click", () => set(face.weights.map(() => 0)));
}

const root = document.getElementById("viewer");
const bytes = Uint8Array.from(atob(document.getElementById("glb").textContent.trim()), (c) => c.charCodeAt(0));
showFace(root, bytes.buffer).then(
  () => (root.dataset.state = "ready"),
  (error) => { root.dataset.state = "failed"; root.querySelector(".message").textContent = `No 3D view: ${error.message}`; },
);
