// The comparison of the report: three embedded pictures on one canvas. `Compare` and what goes with it stand above.

const stage = $("stage"), canvas = $("canvas"), context = canvas.getContext("2d");
document.documentElement.classList.toggle("js", Boolean(context));

const MAX_ZOOM = 32; // screen pixels per pixel of a picture
const MAGNIFIED = 3; // screen pixels per pixel from which pixels stay squares: smoothing would hide a step
const pictures = [...document.querySelectorAll("img.picture")];
const images = Object.fromEntries(pictures.map((image) => [image.dataset.name, image]));
const labels = Object.fromEntries(pictures.map((image) => [image.dataset.name, image.alt]));
const facts = Object.fromEntries(["metres", "width", "left", "top"].map((name) => [name, Number(canvas.dataset[name]) || 0]));

// Geometry: (x, y) is the picture's point, 0-1, at the middle of the canvas; zoom 1 shows the whole picture.
const view = { zoom: 1, x: 0.5, y: 0.5 };
let width = 1, height = 1, frame = 0;

const size = () => ({ w: images.reference.naturalWidth || 1, h: images.reference.naturalHeight || 1 });
// Reference pixels per pixel of the embedded picture.
const step = () => facts.width / size().w;
const fitScale = () => Math.min(width / size().w, height / size().h);
const scale = () => fitScale() * view.zoom;
const origin = () => ({ x: width / 2 - view.x * size().w * scale(), y: height / 2 - view.y * size().h * scale() });

// From the whole picture, or one pixel on one of the screen where that is smaller, to where pixels are large squares.
function zoomed(zoom) {
  const lowest = Math.min(1, step() / fitScale() / (window.devicePixelRatio || 1));
  return clamp(zoom, lowest, MAX_ZOOM / Math.min(fitScale(), 1));
}

function keepInside() {
  view.zoom = zoomed(view.zoom);
  const half = { x: width / (2 * size().w * scale()), y: height / (2 * size().h * scale()) };
  for (const axis of ["x", "y"]) view[axis] = half[axis] >= 0.5 ? 0.5 : clamp(view[axis], half[axis], 1 - half[axis]);
}

function paint(compare, name) {
  const at = origin();
  context.save();
  clipTo(context, compare.parts(name, width, height));
  context.globalAlpha = compare.opacity(name);
  context.drawImage(images[name], at.x, at.y, size().w * scale(), size().h * scale());
  context.restore();
}

function draw() {
  frame = 0;
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = scale() * ratio < MAGNIFIED;
  context.imageSmoothingQuality = "high";
  for (const name of new Set(compare.pair)) paint(compare, name);
  $("zoom").textContent = Math.round(100 * scale() * ratio / step()) + " %";
  canvas.classList.toggle("zoomed", view.zoom > 1.001);
  showScale(step() / scale(), facts.metres);
}

function redraw() { if (!frame) frame = requestAnimationFrame(draw); }

// As large as the window has room for beside the words, so that the picture is seen without scrolling.
function resize() {
  const ratio = window.devicePixelRatio || 1, whole = document.fullscreenElement;
  const above = stage.getBoundingClientRect().top + window.scrollY;
  const room = whole ? window.innerHeight - 80 : Math.max(window.innerHeight - Math.min(above, 220) - 28, 300);
  width = Math.max(stage.clientWidth, 1);
  height = clamp(width * size().h / size().w, Math.min(200, room), room);
  stage.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  keepInside();
  redraw();
}

function zoomAt(factor, px = width / 2, py = height / 2) {
  const at = origin(), old = scale();
  const u = (px - at.x) / old, v = (py - at.y) / old;
  view.zoom = zoomed(view.zoom * factor);
  view.x = (u + (width / 2 - px) / scale()) / size().w;
  view.y = (v + (height / 2 - py) / scale()) / size().h;
  keepInside();
  redraw();
}

function pan(dx, dy) {
  view.x -= dx / (size().w * scale());
  view.y -= dy / (size().h * scale());
  keepInside();
  redraw();
}

// A place of the reference in the middle, with `span` reference pixels on a third of the width.
function look(x, y, span) {
  view.x = (x - facts.left + 0.5) / step() / size().w;
  view.y = (y - facts.top + 0.5) / step() / size().h;
  view.zoom = width / 3 / (span / step()) / fitScale();
  keepInside();
  redraw();
}

function fit() {
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5 });
  keepInside();
  redraw();
}

// Pointers: one drags the picture, two pinch.
const pointers = new Map();
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

function move(event) {
  const at = place(event), old = pointers.get(event.pointerId);
  showPlace(at);
  if (!old) return;
  if (pointers.size === 2) {
    const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
    const before = Math.hypot(old.x - other.x, old.y - other.y), now = Math.hypot(at.x - other.x, at.y - other.y);
    if (before > 0) zoomAt(now / before, (at.x + other.x) / 2, (at.y + other.y) / 2);
  } else pan(at.x - old.x, at.y - old.y);
  pointers.set(event.pointerId, at);
}

function showPlace(at) {
  const from = origin();
  const x = (at.x - from.x) / scale(), y = (at.y - from.y) / scale();
  const inside = x >= 0 && y >= 0 && x < size().w && y < size().h;
  $("where").textContent = inside ? `x ${Math.round(facts.left + x * step() - 0.5)}, y ${Math.round(facts.top + y * step() - 0.5)}` : "";
}

function listen(compare) {
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("grabbing");
  });
  canvas.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      canvas.classList.remove("grabbing");
    });
  }
  canvas.addEventListener("pointerleave", () => { $("where").textContent = ""; });
  canvas.addEventListener("dblclick", (event) => { const at = place(event); zoomAt(2, at.x, at.y); });
  // The wheel zooms once the picture has been clicked (or with Ctrl), so that scrolling past it still scrolls the page.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey && !document.fullscreenElement) return;
    event.preventDefault();
    const at = place(event);
    zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), at.x, at.y);
  }, { passive: false });
  const keys = {
    ...compare.keys,
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    "+": () => zoomAt(1.25), "=": () => zoomAt(1.25), "-": () => zoomAt(0.8), 0: fit, Escape: () => canvas.blur(),
  };
  listenToKeys(canvas, keys);
  for (const link of document.querySelectorAll("a.closeup")) {
    link.addEventListener("click", () => look(Number(link.dataset.x), Number(link.dataset.y), Number(link.dataset.span)));
  }
  $("zoom-in").addEventListener("click", () => zoomAt(1.5));
  $("zoom-out").addEventListener("click", () => zoomAt(1 / 1.5));
  $("actual").addEventListener("click", () => zoomAt(step() / scale() / (window.devicePixelRatio || 1)));
  $("fit").addEventListener("click", fit);
  $("full").hidden = !document.fullscreenEnabled;
  $("full").addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen(); else $("viewer").requestFullscreen();
  });
  window.addEventListener("resize", resize);
  document.addEventListener("fullscreenchange", resize);
  window.addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });
}

let compare = null; // without a canvas the pictures stand side by side
if (context) {
  compare = new Compare(labels, redraw);
  listen(compare);
  Promise.all(pictures.map((image) => image.decode())).then(resize).finally(() => { stage.dataset.ready = "yes"; });
}
