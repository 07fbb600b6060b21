"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { tokenizer, clips, steps, figures, usage } = data;
const layers = usage.layers ?? []; // of codes; none of a VAE
const decodedTracks = Math.max(1, steps.length);
const stepFrames = tokenizer.downsample;

// ---------------------------------------------------------------- small things

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "circle", "rect", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
function say(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return digits ? value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : whole.format(value);
}
function many(count, what) {
  return `${say(count)} ${what}${count === 1 ? "" : "s"}`;
}
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(0).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}
function percent(share) {
  if (share > 0 && share < 0.0005) return "under 0.1 %";
  return share < 0.0995 ? `${say(100 * share, 1)} %` : `${say(100 * share)} %`;
}
const seconds = (frame) => `${say(frame / tokenizer.fps, 2)} s`;
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const layerName = (q) => {
  const parts = tokenizer.parts.length;
  if (parts) return `${tokenizer.parts[q % parts]} ${Math.floor(q / parts)}`;
  return layers.length > 1 ? `layer ${q}` : "tokens";
};

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

// sRGB of a colour in OKLCH, whose lightness looks alike for every hue.
function oklch(light, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180), b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const byte = (c) => Math.round(255 * clamp(c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055, 0, 1));
  return `rgb(${linear.map(byte).join(" ")})`;
}
// Codes by their rank in use: hues a golden angle apart, so that the most used ones differ most.
function codeColour(q, code) {
  const rank = ranks[q][code];
  const light = (isDark() ? [0.72, 0.84, 0.6] : [0.66, 0.79, 0.53])[rank % 3];
  return oklch(light, 0.125, 25 + 137.508 * rank);
}
function mix(share, from = "--line", to = "--accent") {
  return `color-mix(in oklab, ${style(to)} ${Math.round(100 * share)}%, ${style(from)})`;
}
const ramp = (i, n) => (n === 1 ? style("--accent") : mix(1 - (0.8 * i) / (n - 1), "--truth"));

const order = layers.map((layer) => [...layer.counts.keys()].sort((a, b) => layer.counts[b] - layer.counts[a] || a - b));
const ranks = order.map((codes) => codes.reduce((found, code, rank) => ((found[code] = rank), found), []));

const tip = $("tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(event.clientX + 14, 8, innerWidth - box.width - 8)}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
}
const hideTip = () => (tip.hidden = true);

// A canvas in device pixels, to be drawn in CSS pixels.
function sized(canvas, width, height) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d", { willReadFrequently: true }); // by the CPU: a software GPU takes seconds for long paths
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  return pen;
}

const restyles = []; // what to draw again when light turns to dark, or the width changes
const restyle = () => restyles.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);

// ---------------------------------------------------------------- data

async function inflated(id) {
  const bytes = Uint8Array.from(atob($(`blob-${id}`).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
// Integers of that many bytes, which are kept as all lowest bytes, all second ones, ...
async function integers(id, kind) {
  const planes = await inflated(id);
  const wide = kind.BYTES_PER_ELEMENT, count = planes.length / wide;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < wide; plane++)
    for (let i = 0, from = plane * count; i < count; i++) bytes[i * wide + plane] = planes[from + i];
  return new kind(bytes.buffer);
}
// Motion whose differences in time are kept: at(track, column, frame).
async function motionOf(id, frames, scale) {
  const numbers = await integers(id, Int16Array);
  for (let start = 0; start < numbers.length; start += frames)
    for (let i = start + 1; i < start + frames; i++) numbers[i] += numbers[i - 1];
  const columns = data.skeleton ? 3 * data.skeleton.names.length : data.columns.length;
  const grain = Array.isArray(scale.grain) ? scale.grain : Array(columns).fill(scale.grain);
  const middle = scale.middle ?? Array(columns).fill(0);
  const at = (track, column, frame) => numbers[(track * columns + column) * frames + frame] * grain[column] + middle[column];
  return { frames, columns, at };
}
let codes = null; // every layer's codes of all clips, end to end
const firstToken = [];
clips.reduce((start, clip, n) => ((firstToken[n] = start), start + clip.tokens), 0);
const allTokens = clips.reduce((sum, clip) => sum + clip.tokens, 0);
const codeAt = (clip, q, token) => codes[q * allTokens + firstToken[clip] + token];

// ---------------------------------------------------------------- figures in space

let threeLoading = null;
function three() {
  threeLoading ??= inflated("three").then((bytes) => {
    document.head.append(make("script", {}, `${new TextDecoder().decode(bytes)};window.THREE=THREE`));
    return window.THREE;
  });
  return threeLoading;
}

// Where the eye is: turned by `azimuth` and `height` about a target.
class Camera {
  constructor() {
    Object.assign(this, { azimuth: 0.7, height: 0.22, distance: 3, target: [0, 1, 0] });
  }
  get axes() {
    const [sa, ca, sh, ch] = [Math.sin(this.azimuth), Math.cos(this.azimuth), Math.sin(this.height), Math.cos(this.height)];
    return { right: [ca, 0, -sa], up: [-sa * sh, ch, -ca * sh], back: [sa * ch, sh, ca * ch] };
  }
  // Drag turns; a wheel zooms where the box has the focus.
  listen(box, changed) {
    let last = null;
    box.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      if (!last) return;
      this.azimuth -= (event.clientX - last[0]) * 0.008;
      this.height = clamp(this.height + (event.clientY - last[1]) * 0.006, -0.1, 1.5);
      last = [event.clientX, event.clientY];
      changed();
    });
    for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, () => (last = null));
    box.addEventListener("wheel", (event) => {
      if (document.activeElement !== box && !event.ctrlKey) return;
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.001), changed);
    }, { passive: false });
  }
  zoom(factor, changed) {
    this.factor = clamp((this.factor ?? 1) * factor, 0.25, 6);
    changed();
  }
}

// What both ways of drawing share: tracks [{role, at}], their size, ground and path.
class Scene {
  constructor(box) {
    this.box = box;
    this.camera = new Camera();
    this.frame = 0;
    this.beside = false;
    this.follow = true;
    this.together = false;
    this.canvas = make("canvas", { "aria-hidden": true });
    box.append(this.canvas);
    box.classList.add("solid");
    this.camera.listen(box, () => this.draw(this.frame));
    new ResizeObserver(() => this.resize()).observe(box);
  }
  show(motion, tracks) {
    this.motion = motion;
    this.tracks = tracks;
    const { frames, columns, at } = motion;
    const joints = columns / 3;
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    let size = 0, ground = Infinity;
    const first = tracks[0].track;
    for (let frame = 0; frame < frames; frame += Math.max(1, Math.floor(frames / 40))) {
      const least = [Infinity, Infinity, Infinity], most = [-Infinity, -Infinity, -Infinity];
      for (let joint = 0; joint < joints; joint++)
        for (let axis = 0; axis < 3; axis++) {
          const value = at(first, 3 * joint + axis, frame);
          least[axis] = Math.min(least[axis], value);
          most[axis] = Math.max(most[axis], value);
        }
      size = Math.max(size, ...most.map((value, axis) => value - least[axis]));
      ground = Math.min(ground, least[1]);
      for (let axis = 0; axis < 3; axis++) {
        low[axis] = Math.min(low[axis], least[axis]);
        high[axis] = Math.max(high[axis], most[axis]);
      }
    }
    this.size = size || 1;
    this.ground = ground;
    this.all = { middle: low.map((value, axis) => (value + high[axis]) / 2), wide: Math.max(high[0] - low[0], high[2] - low[2]) };
    this.shown?.();
  }
  position(track, joint, frame, shift) {
    const { at } = this.motion;
    return [at(track, 3 * joint, frame) + shift[0], at(track, 3 * joint + 1, frame), at(track, 3 * joint + 2, frame) + shift[2]];
  }
  // Smoothed over half a second, so that the picture does not shake with the hips.
  rootAt(frame) {
    const { at, frames } = this.motion;
    const reach = Math.round(tokenizer.fps / 4), sum = [0, 0];
    let count = 0;
    for (let f = Math.max(0, frame - reach); f <= Math.min(frames - 1, frame + reach); f++, count++) {
      sum[0] += at(this.tracks[0].track, 0, f);
      sum[1] += at(this.tracks[0].track, 2, f);
    }
    return sum.map((value) => value / count);
  }
  look(frame) {
    const y = this.ground + 0.48 * this.size;
    let reach = 2.1 * this.size;
    if (this.follow) {
      const [x, z] = this.rootAt(frame);
      this.camera.target = [x, y, z];
    } else {
      this.camera.target = [this.all.middle[0], y, this.all.middle[2]];
      reach = Math.max(reach, this.all.wide * 1.15);
    }
    const narrow = Math.max(1, (this.beside ? 1.35 : 0.9) / (this.box.clientWidth / this.box.clientHeight || 1));
    this.camera.distance = (this.beside ? 1.1 : 1) * reach * narrow * (this.camera.factor ?? 1);
  }
  // How far a figure is drawn from where it is: apart, and with the root of the original where that is asked for.
  shift(role, track, frame) {
    const { at } = this.motion, first = this.tracks[0].track;
    const back = this.together ? [0, 2].map((axis) => at(first, axis, frame) - at(track, axis, frame)) : [0, 0];
    if (!this.beside) return [back[0], 0, back[1]];
    const { right } = this.camera.axes;
    const way = (role === "truth" ? -0.42 : 0.42) * this.size;
    return [right[0] * way + back[0], 0, right[2] * way + back[1]];
  }
}

class Solid extends Scene {
  constructor(box, T) {
    super(box);
    this.T = T;
    this.renderer = new T.WebGLRenderer({ canvas: this.canvas, antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio || 1, 2));
    this.eye = new T.PerspectiveCamera(35, 1, 0.01, 1000);
    this.scene = new T.Scene();
    this.sky = new T.HemisphereLight(0xffffff, 0x888888, 2.2);
    this.sun = new T.DirectionalLight(0xffffff, 1.6);
    this.sun.position.set(2, 5, 3);
    this.scene.add(this.sky, this.sun);
    this.bodies = {};
    const lines = [];
    for (let n = -14; n <= 14; n++) // cell by cell: software renderers lose long lines that pass behind the eye
      for (let m = -14; m < 14; m++) lines.push(n, 0, m, n, 0, m + 1, m, 0, n, m + 1, 0, n);
    this.grid = new T.LineSegments(new T.BufferGeometry(), new T.LineBasicMaterial());
    this.grid.geometry.setAttribute("position", new T.BufferAttribute(new Float32Array(lines), 3));
    this.scene.add(this.grid);
    this.scene.fog = new T.Fog(0, 1, 2);
    this.restyle();
    restyles.push(() => this.restyle());
  }
  restyle() {
    this.grid.material.color.setStyle(style("--grid"));
    this.scene.fog.color.setStyle(style("--stage"));
    for (const [role, body] of Object.entries(this.bodies)) body.paint(style(role === "truth" ? "--truth" : "--accent"));
    if (this.motion) this.draw(this.frame);
  }
  shown() {
    const T = this.T, joints = this.motion.columns / 3, parents = data.skeleton.parents;
    for (const { role } of this.tracks) {
      if (this.bodies[role]) continue;
      const skin = new T.MeshLambertMaterial();
      const bones = new T.InstancedMesh(new T.CylinderGeometry(1, 1, 1, 10), skin, joints);
      const knots = new T.InstancedMesh(new T.SphereGeometry(1, 14, 10), skin, joints);
      const path = new T.Line(new T.BufferGeometry(), new T.LineBasicMaterial({ transparent: true, opacity: 0.7 }));
      for (const part of [bones, knots, path]) part.frustumCulled = false;
      bones.visible = Boolean(parents);
      this.scene.add(bones, knots, path);
      const paint = (colour) => {
        skin.color.setStyle(colour);
        path.material.color.setStyle(colour);
      };
      this.bodies[role] = { bones, knots, path, paint };
      paint(style(role === "truth" ? "--truth" : "--accent"));
    }
    for (const { role, track } of this.tracks) {
      const line = new Float32Array(3 * this.motion.frames);
      for (let frame = 0; frame < this.motion.frames; frame++) {
        line[3 * frame] = this.motion.at(track, 0, frame);
        line[3 * frame + 1] = this.ground + 0.004 * this.size;
        line[3 * frame + 2] = this.motion.at(track, 2, frame);
      }
      const { path } = this.bodies[role];
      path.geometry.dispose();
      path.geometry = new T.BufferGeometry();
      path.geometry.setAttribute("position", new T.BufferAttribute(line, 3));
    }
    this.resize();
  }
  resize() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.eye.aspect = width / height;
    this.eye.updateProjectionMatrix();
    if (this.motion) this.draw(this.frame);
  }
  draw(frame) {
    this.frame = frame;
    if (!this.motion) return;
    const T = this.T, { camera, size } = this, parents = data.skeleton.parents;
    const joints = this.motion.columns / 3;
    this.look(frame);
    const { back } = camera.axes;
    this.eye.position.set(...camera.target.map((value, axis) => value + back[axis] * camera.distance));
    this.eye.lookAt(...camera.target);
    const cell = size > 0.8 && size < 3 ? 1 : size / 2;
    this.grid.scale.setScalar(cell);
    this.grid.position.set(Math.round(camera.target[0] / cell) * cell, this.ground, Math.round(camera.target[2] / cell) * cell);
    this.scene.fog.near = camera.distance;
    this.scene.fog.far = camera.distance * 2.6 + 2 * size;
    const up = new T.Vector3(0, 1, 0), matrix = new T.Matrix4(), turn = new T.Quaternion(), flat = new T.Quaternion();
    const thin = (parents ? 0.011 : 0.016) * size;
    for (const { role, track } of this.tracks) {
      const { bones, knots, path } = this.bodies[role];
      const shift = this.shift(role, track, frame);
      path.position.set(...shift);
      const places = [];
      for (let joint = 0; joint < joints; joint++) {
        const place = new T.Vector3(...this.position(track, joint, frame, shift));
        places.push(place);
        const thick = thin * (joint ? 1.25 : 1.7);
        knots.setMatrixAt(joint, matrix.compose(place, flat, new T.Vector3(thick, thick, thick)));
        if (!parents) continue;
        const above = places[Math.max(0, parents[joint])];
        const way = place.clone().sub(above), length = way.length();
        if (length > 0) turn.setFromUnitVectors(up, way.clone().divideScalar(length));
        matrix.compose(above.clone().add(place).multiplyScalar(0.5), turn, new T.Vector3(thin, Math.max(length, 1e-9), thin));
        bones.setMatrixAt(joint, matrix);
      }
      bones.instanceMatrix.needsUpdate = knots.instanceMatrix.needsUpdate = true;
    }
    this.renderer.render(this.scene, this.eye);
  }
}

// The same with a 2-D canvas, where there is no WebGL.
class Flat extends Scene {
  constructor(box) {
    super(box);
    restyles.push(() => this.resize());
  }
  shown() {
    this.resize();
  }
  resize() {
    if (!this.box.clientWidth) return;
    this.pen = sized(this.canvas, this.box.clientWidth, this.box.clientHeight);
    if (this.motion) this.draw(this.frame);
  }
  draw(frame) {
    this.frame = frame;
    if (!this.motion || !this.pen) return;
    const { clientWidth: width, clientHeight: height } = this.box;
    this.look(frame);
    const { right, up, back } = this.camera.axes, pen = this.pen;
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    const seen = (place) => {
      const from = place.map((value, axis) => value - this.camera.target[axis]);
      const scale = (height / 2 / Math.tan((17.5 * Math.PI) / 180)) / Math.max(1e-6, this.camera.distance - dot(from, back));
      return [width / 2 + dot(from, right) * scale, height / 2 - dot(from, up) * scale];
    };
    pen.clearRect(0, 0, width, height);
    pen.lineCap = "round";
    for (const { role, track } of this.tracks) {
      const shift = this.shift(role, track, frame);
      pen.strokeStyle = pen.fillStyle = style(role === "truth" ? "--truth" : "--accent");
      pen.lineWidth = 3;
      for (let joint = 0; joint < this.motion.columns / 3; joint++) {
        const place = seen(this.position(track, joint, frame, shift));
        const parent = data.skeleton.parents?.[joint] ?? -1;
        pen.beginPath();
        if (parent < 0) pen.arc(...place, 4, 0, 7), pen.fill();
        else pen.moveTo(...seen(this.position(track, parent, frame, shift))), pen.lineTo(...place), pen.stroke();
      }
    }
  }
}

// ---------------------------------------------------------------- columns as curves

const CLOSE_UP_S = 8;
const tokensOf = (clip) => Math.ceil(clips[clip].frames / stepFrames);
// Which tokens of the clip are seen: some seconds of a long one at a time, or all.
function closeUp(frame) {
  const all = tokensOf(player.clip), most = Math.ceil((CLOSE_UP_S * tokenizer.fps) / stepFrames);
  const shown = player.close ? Math.min(all, most) : all;
  return { first: clamp(Math.floor(frame / stepFrames / shown) * shown, 0, all - shown), shown };
}
class Curves {
  // `seek`: what a click on a frame does; without it the box is that of a code, and all of it is shown.
  constructor(box, rows, seek) {
    Object.assign(this, { box, rows, seek, first: 0, frame: 0 });
    this.canvas = make("canvas", { "aria-hidden": true });
    box.append(this.canvas);
    box.classList.add("columns-stage");
    new ResizeObserver(() => this.width !== box.clientWidth && this.resize()).observe(box);
    restyles.push(() => this.resize());
    if (seek)
      box.addEventListener("pointerdown", (event) => {
        if (this.motion) seek(this.start + Math.round(((event.clientX - box.getBoundingClientRect().left - 12) / (this.width - 24)) * (this.shown - 1)));
      });
  }
  show(motion, tracks) {
    Object.assign(this, { motion, tracks });
    this.resize();
  }
  turnTo(frame) {
    const { frames } = this.motion;
    const { first, shown } = this.seek ? closeUp(frame) : { first: 0, shown: frames };
    this.start = first * stepFrames;
    this.shown = Math.min(shown * stepFrames, frames - this.start);
  }
  resize() {
    if (!this.motion || !this.box.clientWidth) return;
    this.width = this.box.clientWidth;
    this.turnTo(this.frame);
    const { columns, at } = this.motion, first = this.start, end = first + this.shown;
    const shown = Math.min(this.rows, columns - this.first);
    const top = this.rows > 3 ? 34 : 6, high = this.rows > 3 ? 68 : 58;
    this.height = top + shown * high + 6;
    this.pen = sized(this.canvas, this.width, this.height);
    this.still = make("canvas");
    const pen = sized(this.still, this.width, this.height);
    for (let row = 0; row < shown; row++) {
      const column = this.first + row, y0 = top + row * high + 18, y1 = top + (row + 1) * high - 4;
      let low = Infinity, most = -Infinity;
      for (const { track } of this.tracks)
        for (let frame = first; frame < end; frame++) {
          const value = at(track, column, frame);
          low = Math.min(low, value);
          most = Math.max(most, value);
        }
      const range = most - low || 1;
      pen.fillStyle = style("--quiet");
      pen.font = "11px system-ui, sans-serif";
      const { name, nmse } = data.columns[column];
      pen.fillText(name, 12, y0 - 6);
      pen.textAlign = "right";
      pen.fillText(`nMSE ${say(nmse, 4)}   ${short(low)} to ${short(most)}`, this.width - 12, y0 - 6);
      pen.textAlign = "left";
      pen.strokeStyle = style("--grid");
      pen.lineWidth = 1;
      pen.strokeRect(12, y0, this.width - 24, y1 - y0);
      for (const { role, track } of this.tracks) {
        pen.strokeStyle = style(role === "truth" ? "--truth" : "--accent");
        pen.lineWidth = role === "truth" ? 2 : 1.3;
        pen.beginPath();
        for (let frame = first; frame < end; frame++)
          pen.lineTo(this.x(frame), y1 - 2 - ((at(track, column, frame) - low) / range) * (y1 - y0 - 4));
        pen.stroke();
      }
    }
    this.draw(this.frame);
  }
  x(frame) {
    return 12 + ((frame - this.start) / Math.max(1, this.shown - 1)) * (this.width - 24);
  }
  draw(frame) {
    this.frame = frame;
    if (!this.pen) return;
    const { start, shown } = this;
    this.turnTo(frame);
    if (start !== this.start || shown !== this.shown) return this.resize();
    this.pen.clearRect(0, 0, this.width, this.height);
    this.pen.drawImage(this.still, 0, 0, this.width, this.height);
    this.pen.fillStyle = style("--ink");
    this.pen.fillRect(this.x(frame) - 0.5, this.rows > 3 ? 34 : 0, 1, this.height);
  }
}

let flat = false;
async function viewIn(box, rows, seek) {
  if (!data.skeleton) return new Curves(box, rows, seek);
  if (!flat)
    try {
      return new Solid(box, await three());
    } catch (error) {
      console.warn(error);
      flat = true;
      box.querySelector("canvas")?.remove();
      problem("This browser gives no WebGL here: the figures are drawn as lines.");
    }
  return new Flat(box);
}

// ---------------------------------------------------------------- the player

const player = { clip: 0, step: Math.max(0, steps.length - 1), frame: 0, playing: false, speed: 1, row: 0, code: null, close: true };
let view = null, codeView = null, motion = null;

async function open(clip, frame = 0) {
  const asked = (player.clip = clip);
  const { frames, name, ...scale } = clips[clip];
  const found = await motionOf(`clip-${clip}`, frames, scale);
  if (player.clip !== asked) return; // another was asked for meanwhile
  motion = found;
  $("clip-name").textContent = name;
  $("scrub").max = frames - 1;
  $("close-box").hidden = frames <= CLOSE_UP_S * tokenizer.fps;
  player.frame = frame;
  document.querySelectorAll("#clips tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
  const row = document.querySelector(`#clips tr[data-clip="${clip}"]`);
  row?.setAttribute("aria-current", "true");
  if (row) {
    const box = row.closest(".scroll");
    if (row.offsetTop < box.scrollTop + 30 || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight)
      box.scrollTop = row.offsetTop - box.clientHeight / 2;
  }
  showTracks();
  seek(frame);
  drawStrip();
}
function showTracks() {
  view.show(motion, [{ role: "truth", track: 0 }, { role: "decoded", track: 1 + player.step }]);
  const clip = clips[player.clip];
  const told = [`${many(clip.frames, "frame")}, ${seconds(clip.frames)}`, `nMSE ${say(clip.nmse[player.step], 4)}`];
  if (clip.pose_mm[player.step] !== null && clip.pose_mm[player.step] !== undefined)
    told.push(`pose ${say(clip.pose_mm[player.step], 1)} mm`, `path ${say(clip.path_mm[player.step])} mm`);
  $("clip-errors").textContent = told.join(" · ");
}
function seek(frame) {
  const last = clips[player.clip].frames - 1;
  player.frame = clamp(frame, 0, last);
  const now = Math.floor(player.frame);
  $("scrub").value = now;
  $("scrub").setAttribute("aria-valuetext", `frame ${now} of ${last}, ${seconds(now)}`);
  $("clock").textContent = `${now} / ${last} · ${seconds(now)}`;
  view.draw(now);
  drawHead();
}
let before = 0;
function tick(now) {
  if (!player.playing) return;
  const { frames } = clips[player.clip];
  let next = player.frame + ((now - before) / 1000) * tokenizer.fps * player.speed;
  before = now;
  if (next >= frames) next %= frames;
  seek(next);
  requestAnimationFrame(tick);
}
function play(on = !player.playing) {
  player.playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  before = performance.now();
  if (on) requestAnimationFrame(tick);
}
function setStep(step) {
  player.step = clamp(step, 0, decodedTracks - 1);
  $("layers").value = player.step;
  const text = `${steps[player.step]} of ${steps.at(-1)}`;
  $("layers-say").textContent = text;
  $("layers").setAttribute("aria-valuetext", `${text}, ${say(data.curve[player.step].bits_per_second, 0)} bits a second`);
  if (motion) {
    showTracks();
    seek(player.frame);
    drawStrip();
  }
}

// ---------------------------------------------------------------- tokens

const strip = $("strip");
let stripStill = null, part = { first: 0, shown: 1 };
const rowHigh = () => (layers.length > 12 ? 9 : layers.length > 6 ? 13 : layers.length > 1 ? 17 : 24);
const covered = (token) => [token * stepFrames, Math.min((token + 1) * stepFrames, clips[player.clip].frames) - 1];

function drawStrip() {
  if (!codes || !strip.clientWidth) return;
  const width = strip.clientWidth, high = rowHigh();
  part = closeUp(player.frame);
  const { first, shown: tokens } = part;
  const height = high * layers.length + 2;
  stripStill = make("canvas");
  const pen = sized(stripStill, width, height);
  const wide = width / tokens, gap = wide >= 5 ? 1 : 0;
  pen.font = `${Math.min(11, high - 5)}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (let q = 0; q < layers.length; q++) {
    pen.globalAlpha = q < steps[player.step] ? 1 : 0.2;
    for (let token = 0; token < tokens; token++) {
      const code = codeAt(player.clip, q, first + token), x = token * wide, y = q * high;
      pen.fillStyle = codeColour(q, code);
      pen.fillRect(x, y, Math.max(wide - gap, 0.5), high - 1);
      if (wide >= 23 && high >= 14) {
        pen.fillStyle = "#14161a";
        pen.fillText(code, x + (wide - gap) / 2, y + (high - 1) / 2 + 0.5, wide - 3);
      }
      if (player.code && player.code.layer === q && player.code.code === code) {
        pen.strokeStyle = style("--ink");
        pen.lineWidth = 2;
        pen.strokeRect(x + 1, y + 1, Math.max(wide - gap - 2, 1), high - 3);
      }
    }
  }
  sized(strip, width, height);
  $("strip-names").replaceChildren(...layers.map((_, q) => {
    const name = make("div", {}, layers.length > 1 ? layerName(q).replace("layer ", "") : "");
    name.style.height = name.style.lineHeight = `${high}px`;
    if (high < 11) name.style.fontSize = "8px";
    return name;
  }));
  strip.setAttribute("aria-valuemax", clips[player.clip].tokens - 1);
  drawHead();
}
function drawHead() {
  if (!stripStill) return;
  if (closeUp(player.frame).first !== part.first) return drawStrip();
  const width = strip.clientWidth, height = parseFloat(strip.style.height);
  const pen = strip.getContext("2d");
  pen.clearRect(0, 0, width, height);
  pen.drawImage(stripStill, 0, 0, width, height);
  const x = ((Math.floor(player.frame) + 0.5 - part.first * stepFrames) / (part.shown * stepFrames)) * width;
  pen.fillStyle = style("--card");
  pen.fillRect(x - 2, 0, 4, height);
  pen.fillStyle = style("--ink");
  pen.fillRect(x - 1, 0, 2, height);
  const token = Math.floor(player.frame / stepFrames);
  strip.setAttribute("aria-valuenow", token);
  strip.setAttribute("aria-valuetext", tokenText(player.row, token).replaceAll("\n", ", "));
}
function tokenText(q, token) {
  const code = codeAt(player.clip, q, token), [first, last] = covered(token);
  return `${layerName(q)}, token ${token}: code ${code}\n${useText(q, code)}\nframes ${first} to ${last}, ${seconds(first)} to ${seconds(last + 1)}`;
}
function useText(q, code) {
  const { counts, tokens, used } = layers[q];
  return counts[code] ? `used ${many(counts[code], "time")}, ${percent(counts[code] / tokens)}, rank ${ranks[q][code] + 1} of ${say(used)}` : "never used";
}
function under(event) {
  const box = strip.getBoundingClientRect();
  return {
    token: part.first + clamp(Math.floor(((event.clientX - box.left) / box.width) * part.shown), 0, part.shown - 1),
    q: clamp(Math.floor((event.clientY - box.top) / rowHigh()), 0, layers.length - 1),
  };
}

async function openCode(layer, code) {
  player.code = { layer, code };
  drawStrip();
  $("code").hidden = false;
  $("code-swatch").style.background = codeColour(layer, code);
  $("code-name").textContent = `Code ${code}${layers.length > 1 ? `, ${layerName(layer)}` : ""}`;
  $("code-use").textContent = useText(layer, code);
  listOccurrences(layer, code);
  $("live").textContent = `Code ${code}, ${layerName(layer)}: ${useText(layer, code)}`;
  const typical = data.typical[layer], track = typical?.codes.indexOf(code) ?? -1;
  $("code-stage").hidden = track < 0;
  if (track < 0) return;
  typical.motion ??= motionOf(`typical-${layer}`, typical.frames, typical);
  const moves = await typical.motion;
  codeView ??= viewIn($("code-stage"), 3);
  const stage = await codeView;
  if (player.code.layer !== layer || player.code.code !== code) return;
  stage.show(moves, [{ role: "decoded", track }]);
  loopCode(stage, moves.frames);
}
let looping = 0;
function loopCode(stage, frames) {
  const mine = ++looping, begin = performance.now();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  function next(now) {
    if (mine !== looping) return;
    const beat = Math.floor(((now - begin) / 1000) * tokenizer.fps * 0.5) % (frames + 6); // half speed, a rest at the end
    stage.draw(Math.min(beat, frames - 1));
    requestAnimationFrame(next);
  }
  if (still) stage.draw(Math.min(frames - 1, data.context));
  else requestAnimationFrame(next);
}
function listOccurrences(layer, code) {
  const found = [];
  let total = 0;
  clips.forEach((clip, n) => {
    const places = [];
    for (let token = 0; token < clip.tokens; token++) if (codeAt(n, layer, token) === code) places.push(token);
    total += places.length;
    if (places.length) found.push({ n, places });
  });
  $("code-where").textContent = total
    ? `${many(total, "place")} in ${found.length} of the ${many(clips.length, "clip")} shown`
    : "In none of the clips shown";
  const rows = found.slice(0, 200).flatMap(({ n, places }) => places.slice(0, 8).map((token, i) => {
    const more = i === 7 && places.length > 8 ? ` and ${places.length - 8} more` : "";
    return make("li", {}, make("button", { type: "button", title: clips[n].name, onclick: () => open(n, token * stepFrames) },
      make("span", {}, clips[n].name), make("span", { class: "quiet number" }, `${seconds(token * stepFrames)}${more}`)));
  }));
  $("code-list").replaceChildren(...rows.slice(0, 300));
}

// ---------------------------------------------------------------- charts

const figure = (title, about, ...content) =>
  make("figure", { class: "card" }, make("figcaption", {}, title, about ? make("small", {}, about) : null), ...content);

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of high / low < 30 ? [1, 2, 5] : [1]) found.push(digit * 10 ** power);
    return found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  }
  const raw = (high - low || 1) / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

// series: [{name, points: [[x, y]], rank}]; a y of null is left out.
function lineChart({ title, about, series, x, y, log = false, zero = true, dots = false }) {
  const kept = series.map((one) => ({ ...one, points: one.points.filter(([, v]) => v !== null && v !== undefined && (!log || v > 0)) })).filter((one) => one.points.length);
  if (!kept.length) return null;
  let width = 520;
  const height = 230, left = 52, right = 20, top = y ? 26 : 12, bottom = 34;
  const xs = kept.flatMap((one) => one.points.map(([v]) => v)), ys = kept.flatMap((one) => one.points.map(([, v]) => v));
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (zero && !log) y0 = Math.min(0, y0);
  if (x0 === x1) [x0, x1] = [x0 * 0.5, x1 * 1.5 || 1];
  if (log) [y0, y1] = [y0 / 1.15, y1 * 1.15];
  else if (y0 === y1) y1 = y0 + 1;
  else y1 += (y1 - y0) * 0.05;
  const scale = (v, a, b) => (log ? (Math.log(v) - Math.log(a)) / (Math.log(b) - Math.log(a)) : (v - a) / (b - a));
  const px = (v) => left + ((v - x0) / (x1 - x0)) * (width - left - right);
  const py = (v) => height - bottom - scale(v, y0, y1) * (height - top - bottom);
  const ends = kept.slice(0, 8).map((one) => `${one.name} from ${short(one.points[0][1])} to ${short(one.points.at(-1)[1])}`).join("; ");
  const svg = make("svg", { role: "img", "aria-label": `${title}: ${y} over ${x}. ${ends}` });
  const legend = make("ul", { class: "legend" });
  function draw() {
    width = clamp(svg.clientWidth || width, 260, 640);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [];
    for (const v of ticks(y0, y1, log))
      parts.push(make("line", { class: "rule", x1: left, x2: width - right, y1: py(v), y2: py(v) }), make("text", { x: left - 8, y: py(v) + 4, "text-anchor": "end" }, short(v)));
    for (const v of ticks(x0, x1, false)) parts.push(make("text", { x: px(v), y: height - bottom + 16, "text-anchor": "middle" }, short(v)));
    parts.push(make("text", { x: width - right, y: height - 3, "text-anchor": "end" }, x), make("text", { x: 4, y: 10, class: "y" }, y));
    kept.forEach((one, n) => {
      const colour = ramp(n, kept.length);
      const path = one.points.map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
      const line = make("path", { d: path, fill: "none", "stroke-width": 1.8, "stroke-linejoin": "round" });
      line.style.stroke = colour;
      parts.push(line);
      if (dots || one.points.length < 2)
        for (const [a, b] of one.points) {
          const dot = make("circle", { cx: px(a), cy: py(b), r: 3.2 });
          dot.style.fill = colour;
          parts.push(dot);
        }
    });
    svg.replaceChildren(...parts, cursor);
    legend.replaceChildren(...(kept.length > 1 ? kept.map((one, n) => {
      const mark = make("i");
      mark.style.background = ramp(n, kept.length);
      return make("li", {}, mark, one.name);
    }) : []));
  }
  const cursor = make("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  draw();
  restyles.push(draw);
  new ResizeObserver(() => Math.abs(svg.clientWidth - width) > 1 && svg.clientWidth <= 640 && draw()).observe(svg);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = x0 + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (x1 - x0);
    const near = (one) => one.points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
    const place = near(kept[0])[0];
    cursor.setAttribute("x1", px(place));
    cursor.setAttribute("x2", px(place));
    cursor.setAttribute("visibility", "visible");
    const told = kept.map((one) => `${kept.length > 1 ? `${one.name} ` : ""}${short(near(one)[1])}`);
    showTip(event, [`${x} ${short(place)}`, ...told].join("\n"));
  });
  svg.addEventListener("pointerleave", () => (cursor.setAttribute("visibility", "hidden"), hideTip()));
  return figure(title, about, svg, legend);
}

// A canvas that is as wide as its figure: draw(pen, width) again whenever that changes.
function canvasOf(height, label, draw, over, click) {
  const canvas = make("canvas", { role: "img", "aria-label": label, class: click ? "pointed" : "" });
  let width = 0;
  const again = () => {
    width = canvas.clientWidth;
    const high = typeof height === "function" ? height(width) : height;
    if (width) draw(sized(canvas, width, high), width, high);
  };
  new ResizeObserver(() => canvas.clientWidth !== width && again()).observe(canvas);
  restyles.push(() => canvas.isConnected && again());
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  if (over)
    canvas.addEventListener("pointermove", (event) => {
      const text = over(...at(event));
      if (text) showTip(event, text);
      else hideTip();
    });
  canvas.addEventListener("pointerleave", hideTip);
  if (click) canvas.addEventListener("click", (event) => click(...at(event)));
  canvas.again = again;
  return canvas;
}

const table = (heads, rows, label) => make("div", { class: "tables" }, make("table", { "aria-label": label },
  make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
  make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first),
    ...rest.map((cell) => (cell instanceof Node ? cell : make("td", {}, cell))))))));

// ---------------------------------------------------------------- sections

function showSummary() {
  const range = (values, digits) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return say(low, digits) === say(high, digits) ? say(low, digits) : `${say(low, digits)}–${say(high, digits)}`;
  };
  const sizes = tokenizer.codebook_sizes;
  const alike = new Set(sizes).size === 1 ? `${say(sizes[0])}` : sizes.join(", ");
  const kind = !sizes.length ? "VAE" : sizes.length === 1 ? `${tokenizer.bottleneck}, ${alike} codes` : `${tokenizer.bottleneck}, ${sizes.length} layers of ${alike} codes`;
  const trained = tokenizer.steps ? `, trained for ${many(tokenizer.steps, "step")}` : "";
  $("about").textContent = `${kind}${trained}. ${many(figures.clips, "clip")}, ${many(figures.frames, "frame")} at ${short(tokenizer.fps)} a second, layout ${tokenizer.layout} (${many(tokenizer.dim, "column")}).`;
  const items = [["normalised MSE", say(figures.nmse, 4), ""]];
  if (figures.mpjpe_pose_mm !== null) items.push(["pose error", say(figures.mpjpe_pose_mm, 1), "mm"], ["error along the path", say(figures.mpjpe_mm), "mm"]);
  items.push(["token frames a second", short(figures.token_frames_per_second), ""]);
  if (layers.length) {
    items.push(["rate", say(figures.bits_per_second), "bits/s"], ["codes used", range(layers.map((one) => Math.floor(100 * one.usage))), "%"], ["perplexity", range(layers.map((one) => one.perplexity)), `of ${alike}`]);
  } else items.push(["active units", say(usage.active_units), `of ${usage.latent_dim}`], ["KL", say(usage.kl, 1), "nats"]);
  $("figures").replaceChildren(...items.map(([name, value, unit]) => make("div", {}, make("dt", {}, name), make("dd", {}, value, unit ? make("small", {}, ` ${unit}`) : null))));
  $("verdict").textContent = `${usage.verdict[0].toUpperCase()}${usage.verdict.slice(1)}.`;
  if (usage.notes?.length) $("verdict").append(make("span", { class: "quiet" }, ` Note: ${usage.notes.join("; ")}.`));
  $("foot").textContent = `Tokenizer ${tokenizer.id.slice(0, 16)}. In this page: ${clips.length} of ${many(figures.clips, "clip")}. Made by vqtool; three.js under the MIT licence.`;
}

// What all names begin with, up to a mark between words: the list is narrow.
function commonStart(names) {
  let start = names[0] ?? "";
  for (const name of names) while (!name.startsWith(start)) start = start.slice(0, -1);
  start = start.replace(/[^\/_.\-\s]*$/, "");
  return names.length > 1 && start.length > 3 ? start.length : 0;
}

function showClips() {
  const cut = commonStart(clips.map((clip) => clip.name));
  const joints = clips.some((clip) => clip.pose_mm[0] !== null && clip.pose_mm[0] !== undefined);
  const words = { worst: "worst", median: "median", other: "in between" };
  const body = make("tbody");
  clips.forEach((clip, n) => {
    const name = make("button", { type: "button", title: clip.name, "aria-label": clip.name }, cut ? `…${clip.name.slice(cut)}` : clip.name);
    const cells = [make("td", {}, name, make("small", {}, `${words[clip.kind]}, ${seconds(clip.frames)}`)), make("td", {}, say(clip.nmse.at(-1), 4))];
    if (joints) cells.push(make("td", {}, say(clip.pose_mm.at(-1), 1)));
    body.append(make("tr", { "data-clip": n, onclick: () => open(n) }, ...cells));
  });
  const heads = ["clip", "nMSE", ...(joints ? ["pose mm"] : [])];
  $("clips").replaceChildren(make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), body);
  $("clips-title").textContent = clips.length === figures.clips ? `Clips, the worst first` : `${clips.length} of ${many(figures.clips, "clip")}, the worst first`;
  const filter = () => {
    const text = $("find").value.toLowerCase(), kind = $("kind").value;
    [...body.rows].forEach((row, n) => (row.hidden = !clips[n].name.toLowerCase().includes(text) || (kind && clips[n].kind !== kind)));
  };
  $("find").addEventListener("input", filter);
  $("kind").addEventListener("change", filter);
}

function heat(values, digits) {
  const most = Math.max(...values.flat().filter((v) => v !== null), 1e-12);
  return (value) => {
    const cell = make("td", {}, say(value, digits));
    const paint = () => (cell.style.background = value === null ? "" : mix(0.55 * Math.sqrt(value / most), "--card"));
    paint();
    restyles.push(paint);
    return cell;
  };
}

function showReconstruction() {
  const box = $("reconstruction-body");
  const joints = figures.mpjpe_pose_mm !== null;
  if (data.curve.length > 1) {
    const at = (key) => data.curve.map((one) => [one.layers, one[key]]);
    const rows = data.curve.map((one) => [String(one.layers), say(one.bits_per_second), say(one.nmse, 4), say(one.nmae, 3),
      ...(joints ? [say(one.mpjpe_pose_mm, 1), say(one.mpjpe_mm), say(one.acceleration_error_mm_s2 / 1000, 2)] : []), say(one.frechet, 3)]);
    box.append(lineChart({ title: "By number of layers", about: "What each further layer takes off the error.", series: [{ name: "normalised MSE", points: at("nmse") }], x: "layers", y: "normalised MSE", dots: true }));
    box.append(figure("Rate and errors", "With the first layers only; encoded anew for each.", table(["layers", "bits/s", "nMSE", "nMAE", ...(joints ? ["pose mm", "path mm", "accel m/s²"] : []), "Fréchet"], rows, "Errors by number of layers")));
  }
  const names = Object.keys(data.groups);
  if (names.length) {
    const cell = heat(Object.values(data.groups), 3);
    const rows = names.map((name) => [`${name} (${data.group_columns[name]})`, ...data.groups[name].map(cell)]);
    const heads = ["columns", ...(steps.length > 1 ? steps.map((n) => `${n}`) : ["nMSE"])];
    box.append(figure("By column group" + (steps.length > 1 ? " and number of layers" : ""), "Normalised MSE; in brackets how many columns the group has.", table(heads, rows, "Normalised MSE by column group")));
  } else if (data.columns) {
    const most = Math.max(...data.columns.map((one) => one.nmse), 1e-12);
    const rows = data.columns.filter((one) => one.moves).map((one) => {
      const bar = make("div", { "aria-hidden": true });
      Object.assign(bar.style, { height: "8px", borderRadius: "2px", background: "var(--accent)", width: `${(100 * one.nmse) / most}%`, opacity: 0.8 });
      const cell = make("td", {}, bar);
      cell.style.width = "55%";
      return [one.name, cell, say(one.nmse, 4)];
    });
    const told = data.columns.length < tokenizer.dim ? `The ${data.columns.length} worst of ${say(tokenizer.dim)}.` : "The worst first.";
    box.append(figure("By column", `Normalised MSE with all layers. ${told}`, make("div", { style: "max-height: 320px; overflow: auto" }, table(["column", "", "nMSE"], rows, "Normalised MSE by column"))));
  }
  if (joints) {
    const rows = [
      ["pose alone", figures.mpjpe_pose_mm, 1, "mm"], ["after the best turn and scale", figures.mpjpe_procrustes_mm, 1, "mm"],
      ["with the roots together", figures.mpjpe_aligned_mm, 1, "mm"], ["along the path", figures.mpjpe_mm, 0, "mm"],
      ["velocity", figures.velocity_error_mm_s, 0, "mm/s"], ["acceleration", figures.acceleration_error_mm_s2, 0, "mm/s²"],
      ["foot skate, decoded", figures.foot_skate_mm_s, 0, "mm/s"], ["foot skate, original", figures.foot_skate_true_mm_s, 0, "mm/s"],
      ["drift at the end", figures.drift_mm, 0, "mm"], ["heading at the end", figures.drift_degrees, 1, "degrees"],
    ].filter(([, value]) => value !== null).map(([name, value, digits, unit]) => [name, say(value, digits), unit]);
    box.append(figure("Joints", "Mean errors with all layers.", table(["measure", "mean", "unit"], rows, "Joint errors")));
  }
}

const runsOf = (numbers) => {
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
};

function showCodebook() {
  const box = $("codebook-body");
  if (!layers.length) {
    $("codebook-title").textContent = document.querySelector("nav a[href='#codebook']").textContent = "Latents";
    const sorted = usage.dimensions.map((one, n) => ({ ...one, n })).sort((a, b) => b.kl - a.kl);
    box.append(lineChart({ title: "KL of each latent dimension", about: "Sorted; dimensions near 0 carry nothing.", series: [{ name: "KL", points: sorted.map((one, n) => [n, one.kl]) }], x: "dimension, largest first", y: "nats a token frame" }));
    return;
  }
  const rows = layers.map((one, q) => [layerName(q), say(one.codebook_size), say(one.used), say(one.dead), say(one.perplexity, 1), say(one.bits, 2), say(one.bigram_bits, 2), one.status]);
  box.append(make("div", { class: "card" }, table(["", "codes", "used", "dead", "perplexity", "bits", "bits, given the one before", "status"], rows, "Use of the codes by layer")));
  const tabs = make("fieldset", { class: "tabs" }, make("legend", { class: "hidden" }, "Layer"));
  const place = make("div", { class: "columns" });
  layers.forEach((_, q) => {
    const input = make("input", { type: "radio", name: "codebook-layer", value: q, checked: q === 0, onchange: () => showLayer(q, place) });
    tabs.append(make("label", {}, input, layerName(q)));
  });
  if (layers.length > 1) box.append(tabs);
  else place.style.marginTop = "16px";
  box.append(place);
  showLayer(0, place);
}

async function showLayer(q, place) {
  const { counts, tokens, used, codebook_size: size } = layers[q];
  const most = Math.max(...counts, 1);
  const pick = (code) => code !== undefined && openCode(q, code).then(() => $("code").scrollIntoView({ block: "nearest" }));
  const told = (code) => `code ${code}\n${useText(q, code)}`;
  const sorted = lineChart({ title: "Use, sorted", about: "Share of the tokens, the most used code first; the thin line is what equal use would give.",
    series: [{ name: "share", points: order[q].slice(0, used).map((code, n) => [n + 1, (100 * counts[code]) / tokens]) }, { name: "equal", points: [[1, 100 / size], [size, 100 / size]] }],
    x: "codes", y: "% of the tokens", log: true });
  const codeUnder = (x, width) => clamp(Math.floor((x / width) * size), 0, size - 1);
  let barWidth = 1;
  const bars = canvasOf(150, `Use by code of ${layerName(q)}: ${used} of ${size} codes used`, (pen, width, height) => {
    barWidth = width;
    pen.fillStyle = style("--line");
    pen.fillRect(0, height - 1, width, 1);
    const wide = width / size, gap = wide >= 3 ? 0.6 : 0;
    counts.forEach((count, code) => {
      const high = Math.sqrt(count / most) * (height - 14);
      pen.fillStyle = count ? style("--accent") : style("--quiet");
      if (count) pen.fillRect(code * wide, height - 1 - high, Math.max(wide - gap, 0.6), high);
      else pen.fillRect(code * wide, height - 4, Math.max(wide - gap, 0.6), 3);
    });
  }, (x) => told(codeUnder(x, barWidth)), (x) => pick(codeUnder(x, barWidth)));
  const dead = counts.flatMap((count, code) => (count ? [] : [code]));
  const list = dead.length ? make("details", {}, make("summary", {}, many(dead.length, "dead code")), make("p", { class: "codes" }, runsOf(dead))) : make("p", { class: "quiet" }, "No dead codes.");
  place.replaceChildren(sorted ?? figure("Use, sorted", "No tokens."), figure("Use by code", "Height is the square root of the count; small ticks are dead codes. Click one to see its motion.", bars, list));
  if ($(`blob-map-${q}`)) await showMap(q, place, pick, told, most);
  if ($(`blob-pairs-${q}`)) await showPairs(q, place, pick);
}

async function showMap(q, place, pick, told, most) {
  const { counts, map_share: share, codebook_size: size } = layers[q];
  const xy = await integers(`map-${q}`, Int16Array);
  let spots = [];
  const high = (width) => Math.min(440, width * 0.8);
  const canvas = canvasOf(high, `Map of the code vectors of ${layerName(q)}`, (pen, width, height) => {
    const low = [Infinity, Infinity], up = [-Infinity, -Infinity];
    for (let code = 0; code < size; code++) for (const axis of [0, 1]) {
      low[axis] = Math.min(low[axis], xy[2 * code + axis]);
      up[axis] = Math.max(up[axis], xy[2 * code + axis]);
    }
    const scale = Math.min((width - 28) / (up[0] - low[0] || 1), (height - 28) / (up[1] - low[1] || 1));
    const middle = [0, 1].map((axis) => (low[axis] + up[axis]) / 2);
    spots = [...order[q]].reverse().map((code) => ({ code, x: width / 2 + (xy[2 * code] - middle[0]) * scale, y: height / 2 - (xy[2 * code + 1] - middle[1]) * scale }));
    for (const { code, x, y } of spots) {
      const use = Math.sqrt(counts[code] / most);
      pen.beginPath();
      pen.arc(x, y, counts[code] ? 2.2 + 5 * use : 1.6, 0, 7);
      pen.fillStyle = counts[code] ? mix(0.15 + 0.85 * use, "--truth") : style("--grid");
      pen.globalAlpha = counts[code] ? 0.85 : 1;
      pen.fill();
    }
    pen.globalAlpha = 1;
  }, (x, y) => { const code = near(x, y); return code === undefined ? "" : told(code); }, (x, y) => pick(near(x, y)));
  const near = (x, y) => {
    let best, least = 14 ** 2;
    for (const spot of spots) {
      const away = (spot.x - x) ** 2 + (spot.y - y) ** 2;
      if (away <= least) [best, least] = [spot.code, away];
    }
    return best;
  };
  place.append(figure("Map of the code vectors", `Their first two principal components, ${percent(share)} of the variance. Larger and stronger: used more; pale dots: dead.`, canvas));
}

async function showPairs(q, place, pick) {
  const { codebook_size: size, used, pairs_shown: share } = layers[q];
  const numbers = await integers(`pairs-${q}`, Uint32Array);
  const pairs = numbers.length / 2, from = new Uint32Array(pairs), to = new Uint32Array(pairs);
  for (let i = 0, key = 0; i < pairs; i++) {
    key += numbers[i];
    from[i] = Math.floor(key / size);
    to[i] = key % size;
  }
  const xy = $(`blob-map-${q}`) ? await integers(`map-${q}`, Int16Array) : null;
  const orders = { use: order[q].slice(0, used), index: order[q].slice(0, used).sort((a, b) => a - b) };
  if (xy) orders.map = order[q].slice(0, used).sort((a, b) => xy[2 * a] - xy[2 * b]);
  let by = "use", cells, count, wide = 1;
  const arrange = () => {
    count = Math.min(used, 240);
    const bin = new Int32Array(size).fill(-1);
    orders[by].forEach((code, n) => (bin[code] = Math.floor((n * count) / used)));
    cells = new Float64Array(count * count);
    for (let i = 0; i < pairs; i++) if (bin[from[i]] >= 0 && bin[to[i]] >= 0) cells[bin[from[i]] * count + bin[to[i]]] += numbers[pairs + i];
  };
  arrange();
  const canvas = canvasOf((width) => Math.min(width, 440), `Transitions of ${layerName(q)}`, (pen, width, height) => {
    wide = Math.min(width, height);
    const most = Math.log1p(cells.reduce((a, b) => Math.max(a, b), 0));
    pen.fillStyle = style("--faint");
    pen.fillRect(0, 0, wide, wide);
    const cell = wide / count, tones = Array.from({ length: 17 }, (_, n) => mix(0.4 + (0.6 * n) / 16, "--faint"));
    for (let i = 0; i < cells.length; i++) {
      if (!cells[i]) continue;
      pen.fillStyle = tones[Math.round((16 * Math.log1p(cells[i])) / most)];
      pen.fillRect((i % count) * cell, Math.floor(i / count) * cell, Math.max(cell, 1), Math.max(cell, 1));
    }
  }, (x, y) => {
    const [row, column] = [Math.floor((y / wide) * count), Math.floor((x / wide) * count)];
    if (row < 0 || column < 0 || row >= count || column >= count) return "";
    const name = (n) => { const group = orders[by].filter((_, i) => Math.floor((i * count) / used) === n); return group.length > 1 ? `${group[0]} (and ${group.length - 1} more)` : group[0]; };
    return `code ${name(row)}, then ${name(column)}\n${many(cells[row * count + column], "time")}`;
  }, (x, y) => y < wide && x < wide && pick(orders[by][Math.floor((y / wide) * used)]));
  const select = make("select", { "aria-label": "Order of the codes", onchange: (event) => ((by = event.target.value), arrange(), canvas.again()) },
    make("option", { value: "use" }, "by use"), make("option", { value: "index" }, "by index"), xy ? make("option", { value: "map" }, "along the map's first axis") : null);
  const part = share < 0.999 ? ` The ${say(pairs)} most frequent pairs, ${percent(share)} of all.` : "";
  place.append(figure("Transitions", `Row: a code; column: the one that follows it in a clip. Stronger: seen more often, in logarithms.${part}`, make("p", {}, "Codes ", select), canvas));
}

function showTraining() {
  const box = $("training-body"), log = data.training;
  if (!log?.length) {
    box.append(make("p", { class: "quiet" }, "There is no metrics.jsonl beside this tokenizer, so how it was trained cannot be shown."));
    return;
  }
  const train = log.filter((one) => one.split === "train"), val = log.filter((one) => one.split === "val");
  const of = (records, key, n) => records.map((one) => [one.step, n === undefined ? one[key] : one[key]?.[n]]);
  const terms = ["loss", "reconstruction", "velocity", "positions", "joints", "commitment", "codebook", "kl"].filter((name) => train.some((one) => one[name] > 0));
  const spread = (records, key) => { const v = records.map((one) => one[key]).filter((x) => x > 0); return v.length > 1 && Math.max(...v) / Math.min(...v) > 8; };
  const each = (key, factor = 1) => layers.map((_, q) => ({ name: layerName(q), points: of(val, key, q).map(([step, v]) => [step, v === undefined ? null : v * factor]) }));
  const looks = val.length > 1 ? [
    { title: "Validation", series: [{ name: "normalised MSE", points: of(val, "nmse") }], x: "step", y: "normalised MSE", log: spread(val, "nmse") },
    layers.length ? { title: "Codes used, validation", series: each("usage", 100), x: "step", y: "% of the codes" } : { title: "KL, validation", series: [{ name: "KL", points: of(val, "kl") }], x: "step", y: "nats" },
    layers.length ? { title: "Perplexity, validation", series: each("perplexity"), x: "step", y: "effective codes" } : null,
  ] : [];
  const charts = [
    { title: "Loss in training", about: "And its terms before their weights.", series: terms.map((name) => ({ name, points: of(train, name) })), x: "step", y: "", log: true },
    ...looks,
    { title: "Learning rate", series: [{ name: "lr", points: of(train, "lr") }], x: "step", y: "" },
  ];
  box.append(...charts.filter(Boolean).map(lineChart).filter(Boolean));
  if (val.length === 1) {
    const [one] = val;
    const rows = [["normalised MSE", say(one.nmse, 4)], ["normalised MAE", say(one.nmae, 4)]];
    layers.forEach((_, q) => one.usage && rows.push([`codes used, ${layerName(q)}`, percent(one.usage[q])], [`perplexity, ${layerName(q)}`, say(one.perplexity[q], 1)]));
    if (one.kl !== undefined) rows.push(["KL, nats a token frame", say(one.kl, 2)]);
    box.append(figure("Validation", `Looked at once, at step ${say(one.step)}.`, table(["measure", ""], rows, "Validation")));
  }
}

// ---------------------------------------------------------------- hands and keys

function listen() {
  const told = ["Space plays", "arrow keys step a frame (with Shift a second)", "N and P change the clip"];
  if (decodedTracks > 1) told.push("[ and ] the layers");
  if (data.skeleton) told.push("drag turns the view, + and \u2212 zoom");
  $("hint").textContent = `${told.join(", ")}.${layers.length ? " Click a token to see its code." : ""}`;
  $("play").addEventListener("click", () => play());
  $("scrub").addEventListener("input", (event) => (play(false), seek(Number(event.target.value))));
  $("speed").addEventListener("change", (event) => (player.speed = Number(event.target.value)));
  $("layers").max = decodedTracks - 1;
  $("layers").addEventListener("input", (event) => setStep(Number(event.target.value)));
  $("layers-box").hidden = decodedTracks < 2;

  for (const input of document.querySelectorAll("input[name=arrange]"))
    input.addEventListener("change", () => ((view.beside = input.value === "beside"), view.draw(Math.floor(player.frame))));
  $("close").addEventListener("change", (event) => {
    player.close = event.target.checked;
    drawStrip();
    view.resize();
  });
  $("together").addEventListener("change", (event) => ((view.together = event.target.checked), view.draw(Math.floor(player.frame))));
  $("follow").addEventListener("change", (event) => ((view.follow = event.target.checked), view.draw(Math.floor(player.frame))));
  if (!data.skeleton) {
    $("arrange").hidden = true;
    $("follow-box").hidden = $("together-box").hidden = true;
    $("stage").setAttribute("aria-label", "Columns of original and decoded motion as curves. Arrow keys step frames, space plays.");
    $("pager").hidden = data.columns.length <= view.rows;
    const turn = (by) => ((view.first = clamp(view.first + by * view.rows, 0, Math.max(0, data.columns.length - view.rows))), view.resize());
    $("page-back").addEventListener("click", () => turn(-1));
    $("page-on").addEventListener("click", () => turn(1));
  }
  strip.addEventListener("pointermove", (event) => { const { q, token } = under(event); showTip(event, tokenText(q, token)); });
  strip.addEventListener("pointerleave", hideTip);
  strip.addEventListener("click", (event) => {
    const { q, token } = under(event);
    player.row = q;
    seek(token * stepFrames);
    openCode(q, codeAt(player.clip, q, token));
  });
  strip.addEventListener("keydown", (event) => {
    const token = Math.floor(player.frame / stepFrames), { tokens } = clips[player.clip];
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 };
    if (event.key in moves) seek(clamp(token + moves[event.key], 0, tokens - 1) * stepFrames);
    else if (event.key === "Home" || event.key === "End") seek(event.key === "Home" ? 0 : (tokens - 1) * stepFrames);
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      player.row = clamp(player.row + (event.key === "ArrowUp" ? -1 : 1), 0, layers.length - 1);
      drawHead();
    } else if (event.key === "Enter") openCode(player.row, codeAt(player.clip, player.row, token));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  let inView = true;
  new IntersectionObserver(([entry]) => (inView = entry.isIntersecting)).observe($("stage"));
  document.addEventListener("keydown", (event) => {
    if (!inView || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    if (target.matches("input[type=search], select, textarea")) return;
    const arrows = target.matches("input[type=range], input[type=radio], .scroll");
    if (event.key === " ") {
      if (target.matches("button, input, a, summary")) return;
      play();
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && !arrows) {
      play(false);
      seek(Math.floor(player.frame) + (event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? Math.round(tokenizer.fps) : 1));
    } else if ((event.key === "[" || event.key === "]") && decodedTracks > 1) setStep(player.step + (event.key === "[" ? -1 : 1));
    else if (event.key === "n" || event.key === "p") open((player.clip + (event.key === "n" ? 1 : clips.length - 1)) % clips.length);
    else if ((event.key === "+" || event.key === "-") && view.camera) view.camera.zoom(event.key === "+" ? 0.9 : 1.1, () => view.draw(view.frame));
    else return;
    event.preventDefault();
  });
  let width = strip.clientWidth;
  new ResizeObserver(() => strip.clientWidth !== width && ((width = strip.clientWidth), drawStrip())).observe(strip);
  restyles.push(drawStrip, () => player.code && ($("code-swatch").style.background = codeColour(player.code.layer, player.code.code)));
}

async function start() {
  showSummary();
  showClips();
  showReconstruction();
  showTraining();
  if (layers.length) codes = await integers("codes", Uint32Array);
  else $("strip-box").hidden = true;
  view = await viewIn($("stage"), 6, (frame) => (play(false), seek(frame)));
  listen();
  if (steps.length) setStep(player.step);
  await open(0);
  showCodebook();
  document.documentElement.dataset.ready = "true";
}
start().catch((error) => {
  console.error(error);
  problem(`This page could not be drawn: ${error.message}. It needs a browser of 2023 or newer.`);
  document.documentElement.dataset.ready = "failed";
});
