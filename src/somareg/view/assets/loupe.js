// The loupe: the ground under the pointer in each image side by side, from the tiles of full resolution.

import { keepInside } from "./popup.js";

const SIDE_PX = 168; // screen pixels of one picture, less where the map is narrow
const LEAST_PX = 84;
const MAGNIFIED = 3; // screen pixels per reference pixel, at least; else twice as many as the map has
const HELD = 64; // tiles

const $ = (id) => document.getElementById(id);

export class Loupe {
  // shown: names of the layers of edges that are drawn over an image.
  constructor(map, scene, shown) {
    this.map = map;
    this.scene = scene;
    this.shown = shown;
    this.box = $("loupe");
    this.tiles = new Map();
    this.place = null; // of the map; null: its middle
    this.frame = 0;
    const figures = [...this.box.querySelectorAll("figure")];
    this.pictures = figures.map((figure) => ({ figure, name: figure.dataset.name, canvas: figure.querySelector("canvas") }));
    map.on(["pointermove", "click"], (event) => { this.place = event.coordinate; this.redraw(); });
    map.getViewport().addEventListener("pointerleave", () => { this.place = null; this.redraw(); });
    map.on("postrender", () => this.redraw());
    $("show-loupe").addEventListener("click", () => this.toggle());
    if ($("loupe-before")) {
      $("loupe-before").checked = false;
      $("loupe-before").addEventListener("change", () => this.redraw());
    }
    this.toggle(false);
  }

  get isOpen() { return !this.box.hidden; }

  toggle(open = this.box.hidden) {
    this.box.hidden = !open;
    $("show-loupe").setAttribute("aria-pressed", String(open));
    if ($("loupe-options")) $("loupe-options").hidden = !open;
    this.redraw();
    this.changed?.();
  }

  toggleBefore() { if (this.isOpen) $("loupe-before")?.click(); }

  redraw() {
    if (this.isOpen && !this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    if (!this.isOpen) return;
    const wanted = this.pictures.filter(({ name }) => name !== "before" || $("loupe-before")?.checked);
    for (const picture of this.pictures) picture.figure.hidden = !wanted.includes(picture);
    const room = ($("stage").clientWidth - 32) / wanted.length - 8;
    const side = Math.floor(Math.max(LEAST_PX, Math.min(SIDE_PX, room)));
    const [x, y] = this.place ?? this.map.getView().getCenter();
    const scale = Math.max(MAGNIFIED, 2 / this.map.getView().getResolution());
    for (const { name, canvas } of wanted) this.#paint(canvas, name, [x, -y], side, scale);
    const at = this.map.getPixelFromCoordinate([x, y]);
    if (at) keepInside(this.box, at, 30);
    this.box.dataset.at = `${x.toFixed(1)} ${(-y).toFixed(1)}`;
  }

  // (x, y) from the corner of the first reference pixel lies in the middle.
  #paint(canvas, name, [x, y], side, scale) {
    const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
    if (canvas.width !== Math.round(side * ratio)) canvas.width = canvas.height = Math.round(side * ratio);
    canvas.style.width = canvas.style.height = side + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, side, side);
    context.imageSmoothingEnabled = false;
    context.translate(side / 2 - x * scale, side / 2 - y * scale);
    const half = side / 2 / scale, edges = this.shown().filter((edge) => this.scene.edges[edge].over.includes(name));
    for (const layer of [name, ...edges]) this.#paintTiles(context, layer, [x - half, y - half, x + half, y + half], scale);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    cross(context, side / 2);
  }

  #paintTiles(context, layer, [left, top, right, bottom], scale) {
    const { tile, width, height } = this.scene;
    const last = (end, size) => Math.min(Math.floor(end / tile), Math.ceil(size / tile) - 1);
    for (let row = Math.max(0, Math.floor(top / tile)); row <= last(bottom, height); row++) {
      for (let column = Math.max(0, Math.floor(left / tile)); column <= last(right, width); column++) {
        const image = this.#tile(layer, column, row), at = tile * scale;
        if (image.complete && image.naturalWidth) context.drawImage(image, column * at, row * at, at, at);
      }
    }
  }

  #tile(layer, column, row) {
    const address = `tiles/${layer}/${this.scene.steps.length - 1}/${column}/${row}.png`;
    let image = this.tiles.get(address);
    if (!image) {
      image = new Image();
      image.addEventListener("load", () => this.redraw());
      image.src = address;
    }
    this.tiles.delete(address); // the last used comes last
    this.tiles.set(address, image);
    if (this.tiles.size > HELD) this.tiles.delete(this.tiles.keys().next().value);
    return image;
  }
}

// Thin, and open in the middle, where one looks.
function cross(context, middle) {
  for (const [width, colour] of [[3, "rgb(16 20 24 / 60%)"], [1, "#fff"]]) {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(middle + 7 * dx, middle + 7 * dy);
      context.lineTo(middle + 17 * dx, middle + 17 * dy);
    }
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
}
