// Arrows and tie points, drawn on a canvas over the map from what the server tells about the part in view.

const ARROW_SPACING = 58; // screen pixels
const REACH = 12; // how near a click must be to a point, screen pixels
const OUTLIER = "#ff7a45";

// Fetches what belongs to the view that came last; an answer for an older one is dropped.
class Latest {
  #running = null;

  async get(address) {
    this.#running?.abort();
    const own = this.#running = new AbortController();
    try {
      const answer = await fetch(address, { signal: own.signal });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      return await answer.json();
    } catch (error) {
      if (own.signal.aborted) return null;
      throw error;
    }
  }
}

// A layer that `draw(context, place, frameState)` paints; `place(x, y)` puts a reference pixel on the screen.
export function canvasLayer(draw, zIndex) {
  const canvas = document.createElement("canvas");
  canvas.className = "marks";
  return new ol.layer.Layer({
    zIndex,
    render(frameState) {
      const [width, height] = frameState.size, ratio = frameState.pixelRatio;
      const { center, resolution } = frameState.viewState;
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      const place = (x, y) => [(x + 0.5 - center[0]) / resolution + width / 2, (y + 0.5 + center[1]) / resolution + height / 2];
      draw(context, place, frameState);
      return canvas;
    },
  });
}

// Left, top, right, bottom of the view in reference pixels.
export function viewBounds(map) {
  const [left, bottom, right, top] = map.getView().calculateExtent(map.getSize());
  return [left - 0.5, -top - 0.5, right - 0.5, -bottom - 0.5].map((value) => value.toFixed(2));
}

export class ArrowLayer {
  constructor(map, told) {
    this.map = map;
    this.told = told;
    this.part = "whole";
    this.data = { arrows: [], factor: 1 };
    this.latest = new Latest();
    this.layer = canvasLayer((context, place) => this.#draw(context, place), 20);
  }

  async refresh() {
    if (!this.layer.getVisible()) return;
    const spacing = (ARROW_SPACING * this.map.getView().getResolution()).toFixed(3);
    const data = await this.latest.get(`arrows.json?bounds=${viewBounds(this.map)}&spacing=${spacing}&part=${this.part}`);
    if (!data) return;
    this.data = data;
    this.layer.changed();
    this.told(data);
  }

  #draw(context, place) {
    const { arrows, factor } = this.data;
    for (const [width, colour] of [[4, "rgb(16 20 24 / 85%)"], [1.8, "rgb(255 212 41)"]]) {
      context.lineWidth = width;
      context.strokeStyle = context.fillStyle = colour;
      context.lineJoin = "round";
      for (const [x, y, dx, dy, certainty] of arrows) {
        context.globalAlpha = certainty < 0.2 ? 0.4 : 1;
        const [x0, y0] = place(x, y), [x1, y1] = place(x + factor * dx, y + factor * dy);
        arrow(context, x0, y0, x1, y1);
      }
    }
    context.globalAlpha = 1;
  }
}

function arrow(context, x0, y0, x1, y1) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 0.75) {
    context.beginPath();
    context.arc(x0, y0, 0.8, 0, 7);
    context.stroke();
    return;
  }
  const head = Math.min(8, 0.55 * length), ux = (x1 - x0) / length, uy = (y1 - y0) / length;
  const bx = x1 - head * ux, by = y1 - head * uy, half = 0.42 * head;
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(bx, by);
  context.moveTo(x1, y1);
  context.lineTo(bx - half * uy, by + half * ux);
  context.lineTo(bx + half * uy, by - half * ux);
  context.closePath();
  context.stroke();
  context.fill();
}

export class PointLayer {
  // colours: of the scale of residuals, from 0 to its end.
  constructor(map, colours, told) {
    this.map = map;
    this.colours = colours;
    this.told = told;
    this.data = { points: [], total: 0 };
    this.selected = null;
    this.latest = new Latest();
    this.layer = canvasLayer((context, place) => this.#draw(context, place), 21);
    this.layer.setVisible(false);
  }

  async refresh() {
    if (!this.layer.getVisible()) return;
    const data = await this.latest.get(`points.json?bounds=${viewBounds(this.map)}`);
    if (!data) return;
    this.data = data;
    this.layer.changed();
    this.told(data);
  }

  // The number of the point at a place on the screen, or null.
  at([px, py]) {
    if (!this.layer.getVisible()) return null;
    let best = null, nearest = REACH;
    for (const [id, x, y] of this.data.points) {
      const [qx, qy] = this.map.getPixelFromCoordinate([x + 0.5, -y - 0.5]);
      const away = Math.hypot(qx - px, qy - py);
      if (away < nearest) { nearest = away; best = id; }
    }
    return best;
  }

  select(id) { this.selected = id; this.layer.changed(); }

  #draw(context, place) {
    const size = Math.min(Math.max(120 / Math.sqrt(this.data.points.length + 1), 3.2), 6.5);
    for (const [id, x, y, level, kept] of this.data.points) {
      const [px, py] = place(x, y);
      context.beginPath();
      context.arc(px, py, size, 0, 7);
      context.lineWidth = kept ? 3 : 4;
      context.strokeStyle = "rgb(16 20 24 / 70%)";
      context.stroke();
      if (kept) {
        context.fillStyle = this.#colour(level ?? 1);
        context.fill();
        context.lineWidth = 1.2;
        context.strokeStyle = "#fff";
      } else {
        context.lineWidth = 1.8;
        context.strokeStyle = OUTLIER;
      }
      context.stroke();
      if (id === this.selected) {
        context.beginPath();
        context.arc(px, py, size + 5, 0, 7);
        context.lineWidth = 2.5;
        context.strokeStyle = "#fff";
        context.stroke();
      }
    }
  }

  #colour(level) { return this.colours[Math.round(level * (this.colours.length - 1))]; }
}
