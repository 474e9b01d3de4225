// Places to look at: the parts of the error map, worst first, and those of the list. Each is ringed and named on the map.

import { canvasLayer } from "./marks.js";

const RING_PX = 26; // radius, screen pixels
const ABOVE = 0.1; // of the map's height that a place lies above its middle, where the handle of the divider is
const CLOSE = 0.5; // reference pixels per screen pixel that a place is looked at with, at least as close as that

const $ = (id) => document.getElementById(id);

export class Places {
  // worst: of the error map, [{x, y, words}], worst first.
  constructor(map, worst) {
    this.map = map;
    this.worst = worst;
    this.number = -1;
    this.place = null;
    this.layer = canvasLayer((context, put) => this.#draw(context, put), 22);
    map.addLayer(this.layer);
    $("worst").hidden = worst.length === 0;
    $("worst").addEventListener("click", (event) => this.step(event.shiftKey ? -1 : 1));
    $("told-close").addEventListener("click", () => this.leave());
    for (const button of document.querySelectorAll("button.place")) {
      button.addEventListener("click", () => {
        const { x, y, words } = button.dataset;
        this.go({ x: Number(x), y: Number(y) }, words);
        button.setAttribute("aria-current", "true");
      });
    }
  }

  // The next worst place, or the one before; after the last comes the first.
  step(by) {
    const count = this.worst.length;
    if (count === 0) return;
    this.number = this.number < 0 && by < 0 ? count - 1 : (this.number + by + count) % count;
    const place = this.worst[this.number];
    this.go(place, `Worst place ${this.number + 1} of ${count}: ${place.words}`);
  }

  go(place, words) {
    this.place = place;
    for (const button of document.querySelectorAll("button.place")) button.removeAttribute("aria-current");
    $("told-words").textContent = words;
    $("told").hidden = false;
    this.layer.changed();
    const view = this.map.getView(), resolution = Math.min(view.getResolution(), CLOSE);
    const down = ABOVE * this.map.getSize()[1] * resolution;
    view.cancelAnimations();
    view.animate({ center: [place.x + 0.5, -place.y - 0.5 - down], resolution, duration: 250 });
  }

  leave() {
    this.place = null;
    $("told").hidden = true;
    for (const button of document.querySelectorAll("button.place")) button.removeAttribute("aria-current");
    this.layer.changed();
  }

  #draw(context, put) {
    if (!this.place) return;
    const [x, y] = put(this.place.x, this.place.y);
    for (const [width, colour] of [[5, "rgb(16 20 24 / 75%)"], [2, "#fff"]]) {
      context.beginPath();
      context.arc(x, y, RING_PX, 0, 7);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
}
