// Two images in one place: swipe, checkerboard, blink, overlay.

export const MODES = ["swipe", "checker", "blink", "mix"];
// Per view: name of the slider and its start.
const DIALS = { swipe: ["Divider", 50], checker: ["Tile size", 35], blink: ["Interval", 30], mix: ["Opacity", 50] };
const MAGNIFIED = 2; // screen pixels per image pixel from which pixels stay squares: smoothing would hide a step

const $ = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Compare {
  // layers: name -> tile layer; labels: name -> what people call it.
  constructor(map, layers, labels) {
    this.map = map;
    this.layers = layers;
    this.labels = labels;
    this.dials = Object.fromEntries(MODES.map((mode) => [mode, DIALS[mode][1]]));
    this.mode = "swipe";
    this.playing = true;
    this.showSecond = false;
    this.timer = 0;
    const names = Object.keys(layers);
    const other = layers.after ? "after" : names.at(-1);
    this.pair = [layers.reference ? "reference" : names[0], other];
    for (const [name, layer] of Object.entries(layers)) {
      layer.on("prerender", (event) => this.#clip(name, event));
      layer.on("postrender", (event) => event.context.restore());
    }
    this.#listen();
    this.setMode("swipe");
    this.apply();
  }

  setPair(first, second) {
    this.pair = [first, second];
    this.apply();
  }

  swap() { this.setPair(this.pair[1], this.pair[0]); }

  setMode(mode) {
    this.mode = mode;
    const input = document.querySelector(`input[name="mode"][value="${mode}"]`);
    input.checked = true;
    $("dial-name").textContent = DIALS[mode][0];
    $("play").hidden = mode !== "blink";
    // Who asked the system for less motion starts the blinking by hand.
    if (mode === "blink") this.playing = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.setDial(this.dials[mode]);
    this.apply();
  }

  setDial(value) {
    this.dials[this.mode] = clamp(value, 0, 100);
    $("dial").value = this.dials[this.mode];
    if (this.mode === "blink") this.#schedule();
    this.apply();
  }

  turn(by) { this.setDial(Math.round(this.dials[this.mode]) + by); }

  space() {
    if (this.mode !== "blink") { this.swap(); return; }
    this.playing = !this.playing;
    this.#schedule();
  }

  // Brings layers, divider and words into line with the state.
  apply() {
    const [first, second] = this.pair;
    const blink = this.mode === "blink";
    for (const [name, layer] of Object.entries(this.layers)) {
      layer.setZIndex(name === second ? 1 : 0);
      // In blink both stay visible, so that neither has to load when its turn comes.
      layer.setVisible(name === first || name === second);
      layer.setOpacity(name === second && name !== first && this.mode === "mix" ? this.dials.mix / 100 : 1);
    }
    if (!blink) clearInterval(this.timer);
    $("first").value = first;
    $("second").value = second;
    $("tag-left").textContent = blink ? this.labels[this.showSecond ? second : first] : this.labels[first];
    $("tag-right").textContent = blink || first === second ? "" : this.labels[second];
    const divider = $("divider");
    divider.hidden = this.mode !== "swipe";
    divider.style.left = this.dials.swipe + "%";
    divider.setAttribute("aria-valuenow", String(Math.round(this.dials.swipe)));
    $("stage").dataset.view = [this.mode, first, second, Math.round(this.dials[this.mode])].join(" ");
    this.map.render();
  }

  #clip(name, event) {
    const context = event.context;
    context.save();
    const scale = event.frameState.pixelRatio / event.frameState.viewState.resolution;
    context.imageSmoothingEnabled = scale < MAGNIFIED;
    if (this.pair[0] === this.pair[1]) return;
    // Each keeps to its own part: where one shows nothing, the other must not shine through.
    const second = name === this.pair[1];
    const [width, height] = this.map.getSize();
    context.beginPath();
    if (this.mode === "swipe") {
      const x = this.dials.swipe / 100 * width;
      rectangle(event, second ? x : 0, 0, second ? width - x : x, height);
    } else if (this.mode === "checker") {
      const tile = 16 + this.dials.checker / 100 * 184;
      for (let row = 0; row * tile < height; row++) {
        const start = second ? row % 2 : 1 - row % 2;
        for (let column = start; column * tile < width; column += 2) rectangle(event, column * tile, row * tile, tile, tile);
      }
    } else if (this.mode === "mix" || this.showSecond === second) {
      rectangle(event, 0, 0, width, height);
    }
    context.clip();
  }

  // Slower than three flashes a second at every position of the slider.
  #schedule() {
    clearInterval(this.timer);
    $("play").textContent = this.playing ? "Pause" : "Play";
    if (this.playing) {
      this.timer = setInterval(() => { this.showSecond = !this.showSecond; this.apply(); }, 400 + this.dials.blink / 100 * 1600);
    }
  }

  #listen() {
    for (const input of document.querySelectorAll('input[name="mode"]')) {
      input.addEventListener("change", () => this.setMode(input.value));
    }
    $("first").addEventListener("change", (event) => this.setPair(event.target.value, this.pair[1]));
    $("second").addEventListener("change", (event) => this.setPair(this.pair[0], event.target.value));
    $("swap").addEventListener("click", () => this.swap());
    $("dial").addEventListener("input", (event) => this.setDial(Number(event.target.value)));
    $("play").addEventListener("click", () => this.space());
    const divider = $("divider");
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      event.preventDefault();
      divider.focus();
    });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = $("stage").getBoundingClientRect();
      this.setDial(100 * (event.clientX - box.left) / box.width);
    });
    divider.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.turn(by);
    });
  }
}

function rectangle(event, x, y, width, height) {
  const [left, top] = ol.render.getRenderPixel(event, [x, y]);
  const [right, bottom] = ol.render.getRenderPixel(event, [x + width, y + height]);
  event.context.rect(left, top, right - left, bottom - top);
}
