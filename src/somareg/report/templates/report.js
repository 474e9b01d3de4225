(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const stage = $("stage");
  const context = stage.getContext("2d");
  if (!context) return;
  document.documentElement.classList.add("js");

  const NAMES = { reference: "Reference", before: "Before", after: "After" };
  const MODES = ["swipe", "checker", "blink", "mix"];
  // Per view: name of the slider, its start, and what its 0-100 means.
  const DIALS = { swipe: ["Divider", 50], checker: ["Tile size", 35], blink: ["Interval", 30], mix: ["Opacity", 50] };
  const MAX_ZOOM = 32;
  const metres = Number(stage.dataset.metres) || 0;
  const images = Object.fromEntries(Object.keys(NAMES).map((key) => [key, $("picture-" + key)]));

  const dials = Object.fromEntries(MODES.map((mode) => [mode, DIALS[mode][1]]));
  const state = { mode: "swipe", pair: ["reference", "after"], zoom: 1, x: 0.5, y: 0.5, second: false, playing: true };
  let width = 1, height = 1, frame = 0, timer = 0, swapped = false;

  // Geometry: (x, y) is the picture's point, 0-1, at the middle of the canvas; zoom 1 shows the whole picture.
  const size = () => ({ w: images.reference.naturalWidth || 1, h: images.reference.naturalHeight || 1 });
  // Reference pixels per pixel of the embedded picture.
  const step = () => Number(stage.dataset.width) / size().w;
  const left = Number(stage.dataset.left), top = Number(stage.dataset.top);
  const fitScale = () => Math.min(width / size().w, height / size().h);
  const scale = () => fitScale() * state.zoom;
  const origin = () => ({ x: width / 2 - state.x * size().w * scale(), y: height / 2 - state.y * size().h * scale() });
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const dial = () => dials[state.mode] / 100;
  const divider = () => dials.swipe / 100 * width;

  function keepInside() {
    state.zoom = clamp(state.zoom, 1, MAX_ZOOM / Math.min(fitScale(), 1));
    const half = { x: width / (2 * size().w * scale()), y: height / (2 * size().h * scale()) };
    for (const axis of ["x", "y"]) state[axis] = half[axis] >= 0.5 ? 0.5 : clamp(state[axis], half[axis], 1 - half[axis]);
  }

  function paint(key) {
    const at = origin();
    context.drawImage(images[key], at.x, at.y, size().w * scale(), size().h * scale());
  }

  function clipped(addPath, key, alpha = 1) {
    context.save();
    if (addPath) { context.beginPath(); addPath(); context.clip(); }
    context.globalAlpha = alpha;
    paint(key);
    context.restore();
  }

  const painters = {
    swipe(first, second) {
      paint(first);
      const x = divider();
      clipped(() => context.rect(x, 0, width - x, height), second);
      context.fillStyle = "rgb(0 0 0 / 55%)";
      context.fillRect(x - 2.5, 0, 5, height);
      context.fillStyle = "#fff";
      context.fillRect(x - 1, 0, 2, height);
      context.beginPath();
      context.arc(x, height / 2, 15, 0, 7);
      context.fill();
      context.strokeStyle = "#1c2127";
      context.lineWidth = 2;
      context.beginPath();
      for (const side of [-1, 1]) {
        context.moveTo(x + side * 4, height / 2 - 4.5);
        context.lineTo(x + side * 8.5, height / 2);
        context.lineTo(x + side * 4, height / 2 + 4.5);
      }
      context.stroke();
    },
    checker(first, second) {
      paint(first);
      const tile = 16 + dial() * 184;
      clipped(() => {
        for (let row = 0; row * tile < height; row++) {
          for (let column = row % 2; column * tile < width; column += 2) context.rect(column * tile, row * tile, tile, tile);
        }
      }, second);
    },
    blink(first, second) { paint(state.second ? second : first); },
    mix(first, second) { paint(first); clipped(null, second, dial()); },
  };

  function draw() {
    frame = 0;
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    // Magnified pixels stay squares: smoothing would hide how far a line is off.
    context.imageSmoothingEnabled = scale() * ratio < 3;
    context.imageSmoothingQuality = "high";
    const [first, second] = shownPair();
    painters[state.mode](first, second);
    drawTags(first, second);
    $("zoom").textContent = Math.round(100 * scale() * ratio) + " %";
    stage.classList.toggle("zoomed", state.zoom > 1.001);
    stage.dataset.view = [state.mode, first, second, state.zoom.toFixed(2)].join(" ");
  }

  function shownPair() { return swapped ? [state.pair[1], state.pair[0]] : state.pair; }

  function drawTags(first, second) {
    const one = state.mode === "blink";
    $("tag-left").textContent = one ? NAMES[state.second ? second : first] : NAMES[first];
    $("tag-right").textContent = one ? "" : NAMES[second];
    const unit = (metres || 1) * step() / scale();
    const goal = unit * 110;
    const power = 10 ** Math.floor(Math.log10(goal));
    const length = [5, 2, 1].find((factor) => factor * power <= goal) * power;
    $("scale-text").textContent = metres ? (length >= 1000 ? length / 1000 + " km" : +length.toPrecision(3) + " m") : +length.toPrecision(3) + " px";
    $("scale-line").style.width = length / unit + "px";
  }

  function redraw() { if (!frame) frame = requestAnimationFrame(draw); }

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    const tall = document.fullscreenElement ? window.innerHeight - 170 : Math.min(window.innerHeight * 0.85, 860);
    width = Math.max(stage.parentElement.clientWidth, 1);
    height = Math.max(Math.min(width * size().h / size().w, tall), 220);
    stage.style.height = height + "px";
    stage.width = Math.round(width * ratio);
    stage.height = Math.round(height * ratio);
    keepInside();
    redraw();
  }

  function zoomAt(factor, px = width / 2, py = height / 2) {
    const at = origin(), old = scale();
    const u = (px - at.x) / old, v = (py - at.y) / old;
    state.zoom *= factor;
    state.zoom = clamp(state.zoom, 1, MAX_ZOOM / Math.min(fitScale(), 1));
    state.x = (u + (width / 2 - px) / scale()) / size().w;
    state.y = (v + (height / 2 - py) / scale()) / size().h;
    keepInside();
    redraw();
  }

  function pan(dx, dy) {
    state.x -= dx / (size().w * scale());
    state.y -= dy / (size().h * scale());
    keepInside();
    redraw();
  }

  // A place of the reference in the middle, with `span` reference pixels on a third of the width.
  function look(x, y, span) {
    state.x = (x - left + 0.5) / step() / size().w;
    state.y = (y - top + 0.5) / step() / size().h;
    state.zoom = width / 3 / (span / step()) / fitScale();
    keepInside();
    redraw();
  }

  function setDial(value) {
    dials[state.mode] = clamp(Math.round(value), 0, 100);
    $("dial").value = dials[state.mode];
    schedule();
    redraw();
  }

  function setMode(mode) {
    state.mode = mode;
    document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
    $("dial-name").textContent = DIALS[mode][0];
    $("play").hidden = mode !== "blink";
    // Who asked the system for less motion starts the blinking by hand.
    if (mode === "blink") state.playing = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    setDial(dials[mode]);
  }

  // Slower than three flashes a second at every position of the slider.
  function schedule() {
    clearInterval(timer);
    $("play").textContent = state.playing ? "Pause" : "Play";
    if (state.mode === "blink" && state.playing) timer = setInterval(flip, 400 + dial() * 1600);
  }

  function flip() { state.second = !state.second; redraw(); }

  function space() {
    if (state.mode === "blink") { state.playing = !state.playing; schedule(); } else { swapped = !swapped; redraw(); }
  }

  function fit() { Object.assign(state, { zoom: 1, x: 0.5, y: 0.5 }); keepInside(); redraw(); }

  // Pointers: one drags the divider or the picture, two pinch.
  const pointers = new Map();
  let onDivider = false;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const nearDivider = (at) => state.mode === "swipe" && Math.abs(at.x - divider()) < 22;

  stage.addEventListener("pointerdown", (event) => {
    const at = place(event);
    onDivider = pointers.size === 0 && nearDivider(at);
    pointers.set(event.pointerId, at);
    stage.setPointerCapture(event.pointerId);
    stage.classList.toggle("grabbing", !onDivider);
  });
  stage.addEventListener("pointermove", (event) => {
    const at = place(event), old = pointers.get(event.pointerId);
    showPlace(at);
    if (!old) { stage.classList.toggle("on-divider", nearDivider(at)); return; }
    if (pointers.size === 2) {
      const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
      const before = Math.hypot(old.x - other.x, old.y - other.y), now = Math.hypot(at.x - other.x, at.y - other.y);
      if (before > 0) zoomAt(now / before, (at.x + other.x) / 2, (at.y + other.y) / 2);
    } else if (onDivider) setDial(100 * at.x / width);
    else pan(at.x - old.x, at.y - old.y);
    pointers.set(event.pointerId, at);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      stage.classList.remove("grabbing");
    });
  }
  stage.addEventListener("pointerleave", () => { $("where").textContent = ""; });
  stage.addEventListener("dblclick", (event) => { const at = place(event); zoomAt(2, at.x, at.y); });
  // The wheel zooms once the picture has been clicked (or with Ctrl), so that scrolling past it still scrolls the page.
  stage.addEventListener("wheel", (event) => {
    if (document.activeElement !== stage && !event.ctrlKey && !document.fullscreenElement) return;
    event.preventDefault();
    const at = place(event);
    zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), at.x, at.y);
  }, { passive: false });

  function showPlace(at) {
    const from = origin();
    const x = (at.x - from.x) / scale(), y = (at.y - from.y) / scale();
    const inside = x >= 0 && y >= 0 && x < size().w && y < size().h;
    $("where").textContent = inside ? `x ${Math.round(left + x * step() - 0.5)}, y ${Math.round(top + y * step() - 0.5)}` : "";
  }

  const keys = {
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    "+": () => zoomAt(1.25), "=": () => zoomAt(1.25), "-": () => zoomAt(0.8), 0: fit, " ": space,
    "[": () => setDial(dials[state.mode] - 2), "]": () => setDial(dials[state.mode] + 2),
    1: () => setMode("swipe"), 2: () => setMode("checker"), 3: () => setMode("blink"), 4: () => setMode("mix"),
    Escape: () => stage.blur(),
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  for (const link of document.querySelectorAll("a.closeup")) {
    link.addEventListener("click", () => look(Number(link.dataset.x), Number(link.dataset.y), Number(link.dataset.span)));
  }
  $("dial").addEventListener("input", (event) => setDial(Number(event.target.value)));
  $("zoom-in").addEventListener("click", () => zoomAt(1.5));
  $("zoom-out").addEventListener("click", () => zoomAt(1 / 1.5));
  $("fit").addEventListener("click", fit);
  $("play").addEventListener("click", space);
  if (document.fullscreenEnabled) {
    $("full").addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen(); else $("viewer").requestFullscreen();
    });
  } else $("full").hidden = true;
  for (const input of document.querySelectorAll('input[name="mode"]')) input.addEventListener("change", () => setMode(input.value));
  for (const input of document.querySelectorAll('input[name="pair"]')) {
    input.addEventListener("change", () => { state.pair = input.value.split(","); swapped = false; redraw(); });
  }
  window.addEventListener("resize", resize);
  document.addEventListener("fullscreenchange", resize);
  window.addEventListener("beforeprint", () => { for (const one of document.querySelectorAll("details")) one.open = true; });

  // A browser may restore old form values after a reload; the page starts from its own.
  document.querySelector('input[name="pair"][value="reference,after"]').checked = true;
  setMode("swipe");
  Promise.all(Object.values(images).map((image) => image.decode())).then(resize).finally(() => { stage.dataset.ready = "yes"; });
})();
