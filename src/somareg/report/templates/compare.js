// Two images in one place: swipe, checkerboard, blink, overlay. The report and the viewer each draw them in their own way;
// what is chosen, and which part of the picture belongs to which image, is told here.

export const MODES = ["swipe", "checker", "blink", "mix"];
// Per view: name of the slider and its start.
const DIALS = { swipe: ["Divider", 50], checker: ["Tile size", 35], blink: ["Interval", 30], mix: ["Opacity", 50] };
const SCALE_PX = 115; // screen pixels that the scale bar is at most about as long as

const $ = (id) => document.getElementById(id);
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class Compare {
  // labels: name of an image -> what people call it; redraw: called with the comparison when the picture has to change.
  constructor(labels, redraw) {
    this.labels = labels;
    this.redraw = redraw;
    this.dials = Object.fromEntries(MODES.map((mode) => [mode, DIALS[mode][1]]));
    this.mode = "swipe";
    this.playing = true;
    this.showSecond = false;
    this.timer = 0;
    // A browser may restore old form values after a reload; the page starts from its own.
    const start = document.querySelector('input[name="pair"]');
    if (start) start.checked = true;
    const only = Object.keys(labels)[0];
    this.pair = start ? start.value.split(",") : [only, only];
    this.#listen();
    this.setMode("swipe");
  }

  // What is chosen, as words of a link, and back; what this page cannot show stays as it is.
  get state() { return { view: `${this.mode},${Math.round(this.dials[this.mode])}`, pair: this.pair.join(",") }; }

  restore({ view = "", pair = "" }) {
    const [mode, dial] = view.split(","), [first, second] = pair.split(",");
    for (const input of document.querySelectorAll('input[name="pair"]')) {
      if (input.value !== pair && input.value !== `${second},${first}`) continue;
      input.checked = true;
      this.pair = [first, second];
    }
    if (!MODES.includes(mode)) { this.apply(); return; }
    if (dial?.trim() && Number.isFinite(Number(dial))) this.dials[mode] = clamp(Number(dial), 0, 100);
    this.setMode(mode);
  }

  swap() {
    this.pair = [this.pair[1], this.pair[0]];
    this.apply();
  }

  setMode(mode) {
    this.mode = mode;
    document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
    $("dial-name").textContent = DIALS[mode][0];
    $("play").hidden = mode !== "blink";
    // Who asked the system for less motion starts the blinking by hand.
    if (mode === "blink") this.playing = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.setDial(this.dials[mode]);
  }

  setDial(value) {
    this.dials[this.mode] = clamp(value, 0, 100);
    $("dial").value = this.dials[this.mode];
    this.#schedule();
    this.apply();
  }

  turn(by) { this.setDial(Math.round(this.dials[this.mode]) + by); }

  space() {
    if (this.mode !== "blink") { this.swap(); return; }
    this.playing = !this.playing;
    this.#schedule();
  }

  // What keys do, by name.
  get keys() {
    return {
      "[": () => this.turn(-2), "]": () => this.turn(2), " ": () => this.space(),
      ...Object.fromEntries(MODES.map((mode, i) => [i + 1, () => this.setMode(mode)])),
    };
  }

  // Boxes [x, y, width, height] of a picture of this size that show an image; null: all of it. Each image keeps to its own
  // part: where one shows nothing, the other must not shine through.
  parts(name, width, height) {
    const second = name === this.pair[1];
    if (this.pair[0] === this.pair[1] || this.mode === "mix") return null;
    if (this.mode === "blink") return this.showSecond === second ? null : [];
    if (this.mode === "swipe") {
      const x = this.dials.swipe / 100 * width;
      return [second ? [x, 0, width - x, height] : [0, 0, x, height]];
    }
    const tile = 16 + this.dials.checker / 100 * 184, boxes = [];
    for (let row = 0; row * tile < height; row++) {
      const start = second ? row % 2 : 1 - row % 2;
      for (let column = start; column * tile < width; column += 2) boxes.push([column * tile, row * tile, tile, tile]);
    }
    return boxes;
  }

  // 0-1; the second image of the pair lies above the first.
  opacity(name) {
    return name === this.pair[1] && name !== this.pair[0] && this.mode === "mix" ? this.dials.mix / 100 : 1;
  }

  // Brings words and divider into line with what is chosen, and then the picture.
  apply() {
    const [first, second] = this.pair, blink = this.mode === "blink", name = (key) => this.labels[key] ?? "";
    $("tag-left").textContent = name(blink && this.showSecond ? second : first);
    $("tag-right").textContent = blink || first === second ? "" : name(second);
    const divider = $("divider");
    divider.hidden = this.mode !== "swipe";
    divider.style.left = this.dials.swipe + "%";
    divider.setAttribute("aria-valuenow", String(Math.round(this.dials.swipe)));
    $("stage").dataset.view = [this.mode, first, second, Math.round(this.dials[this.mode])].join(" ");
    this.redraw(this);
  }

  // Slower than three flashes a second at every position of the slider.
  #schedule() {
    clearInterval(this.timer);
    $("play").textContent = this.playing ? "Pause" : "Play";
    if (this.mode !== "blink" || !this.playing) return;
    this.timer = setInterval(() => { this.showSecond = !this.showSecond; this.apply(); }, 400 + this.dials.blink / 100 * 1600);
  }

  #listen() {
    for (const input of document.querySelectorAll('input[name="mode"]')) {
      input.addEventListener("change", () => this.setMode(input.value));
    }
    for (const input of document.querySelectorAll('input[name="pair"]')) {
      input.addEventListener("change", () => { this.pair = input.value.split(","); this.apply(); });
    }
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

// Leaves only these boxes of a canvas to what is drawn next; null: all of it. `corner` puts a corner on the canvas.
export function clipTo(context, boxes, corner = (point) => point) {
  if (boxes === null) return;
  context.beginPath();
  for (const [x, y, width, height] of boxes) {
    const [left, top] = corner([x, y]), [right, bottom] = corner([x + width, y + height]);
    context.rect(left, top, right - left, bottom - top);
  }
  context.clip();
}

// Calls what a key means. Space and keys with a name mean something else to a control that has the focus.
export function listenToKeys(target, keys) {
  target.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    const control = event.target.closest("button, input, select, summary, a"), isOwn = event.key === " " || event.key.length > 1;
    if (event.target.closest("dialog") || (control && isOwn && event.key !== "Escape")) return;
    event.preventDefault();
    keys[event.key]();
  });
}

// The bar of a round length: step is the reference pixels per screen pixel, metres the edge of one of them or 0.
export function showScale(step, metres) {
  const unit = (metres || 1) * step, goal = unit * SCALE_PX;
  const power = 10 ** Math.floor(Math.log10(goal));
  const length = [5, 2, 1].find((factor) => factor * power <= goal) * power;
  $("scale-text").textContent = metres ? (length >= 1000 ? length / 1000 + " km" : +length.toPrecision(3) + " m") : +length.toPrecision(3) + " px";
  $("scale-line").style.width = length / unit + "px";
}
