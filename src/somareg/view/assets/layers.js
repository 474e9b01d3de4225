// What lies over the images: coloured maps, edges, arrows, tie points; each with its box in the panel and its key.

import { clipTo } from "./compare.js";
import { ArrowLayer, PointLayer } from "./marks.js";
import { PointPopup } from "./popup.js";

const NEUTRAL = { colours: ["#2a9d8f"] };
const $ = (id) => document.getElementById(id);

export function tileLayer(name, scene, { projection, extent }, told, options) {
  const tileGrid = new ol.tilegrid.TileGrid({ extent, origin: [0, 0], resolutions: scene.steps, tileSize: scene.tile });
  const source = new ol.source.TileImage({
    projection, tileGrid, wrapX: false, transition: 0,
    tileUrlFunction: ([level, column, row]) => `tiles/${name}/${level}/${column}/${row}.png`,
  });
  source.on("tileloaderror", () => told(`A picture of "${name}" could not be read; see the terminal.`));
  return new ol.layer.Tile({ source, extent, ...options });
}

// A layer on a canvas of its own: what is clipped between the images must not clip it.
function overlay(name, scene, place, told, options) {
  return tileLayer(name, scene, place, told, { className: "ol-layer overlay-" + name, ...options });
}

// A checkbox that may not be on the page; a browser may have kept its state over a reload, the page starts from its own.
function toggle(id, start, then) {
  const input = $(id);
  if (!input) return;
  input.checked = start;
  input.addEventListener("change", () => then(input.checked));
}

function ramp(canvas, colours) {
  const context = canvas.getContext("2d"), gradient = context.createLinearGradient(0, 0, canvas.width, 0);
  colours.forEach((colour, i) => gradient.addColorStop(i / (colours.length - 1), colour));
  context.fillStyle = gradient;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

// A line of the key on the map, where the panel is not beside it.
function keyLine(colours, words) {
  const line = document.createElement("p"), canvas = document.createElement("canvas");
  Object.assign(canvas, { width: colours.length > 1 ? 64 : 20, height: colours.length > 1 ? 9 : 3 });
  ramp(canvas, colours.length > 1 ? colours : [colours[0], colours[0]]);
  line.append(canvas, words);
  $("map-key").append(line);
  return line;
}

export function makeMaps(map, scene, place, told) {
  const opacity = () => Number($("opacity").value) / 100;
  const layers = Object.entries(scene.layers).map(([name, legend]) => {
    const layer = overlay(name, scene, place, told, { visible: legend.first, opacity: opacity(), zIndex: 10 });
    const box = $("legend-" + name), line = keyLine(legend.colours, `${legend.title}, ${legend.low} to ${legend.high}`);
    ramp(box.querySelector("canvas"), legend.colours);
    box.querySelector(".low").textContent = legend.low;
    box.querySelector(".high").textContent = legend.high;
    const show = (shown) => { layer.setVisible(shown); box.hidden = line.hidden = !shown; };
    toggle("show-" + name, legend.first, show);
    show(legend.first);
    map.addLayer(layer);
    return layer;
  });
  $("opacity").addEventListener("input", () => layers.forEach((layer) => layer.setOpacity(opacity())));
}

// Edges are seen over the images that they can be compared with; where the view has none of them, everywhere.
export function makeEdges(map, scene, place, compare, told) {
  for (const [name, legend] of Object.entries(scene.edges)) {
    const layer = overlay(name, scene, place, told, { visible: false, zIndex: 12 });
    const line = keyLine([legend.colour], legend.title);
    ramp($("swatch-" + name), [legend.colour, legend.colour]);
    const show = (shown) => { layer.setVisible(shown); line.hidden = !shown; };
    toggle("show-" + name, false, show);
    show(false);
    layer.on("prerender", (event) => {
      event.context.save();
      const below = compare.pair.filter((image) => legend.over.includes(image));
      const parts = below.map((image) => compare.parts(image, ...map.getSize()));
      const boxes = below.length === 0 || parts.includes(null) ? null : parts.flat();
      clipTo(event.context, boxes, (corner) => ol.render.getRenderPixel(event, corner));
    });
    layer.on("postrender", (event) => event.context.restore());
    map.addLayer(layer);
  }
}

export const shownEdges = (scene) => Object.keys(scene.edges).filter((name) => $("show-" + name).checked);

export function makeArrows(map, told) {
  const arrows = new ArrowLayer(map, (data) => {
    const length = Math.min(data.key_px * data.factor / map.getView().getResolution(), 112);
    const tip = 2 + length;
    $("arrow-sample").firstElementChild.setAttribute("d", length < 4 ? "" : `M2 7H${tip}M${tip - 6} 3L${tip} 7L${tip - 6} 11`);
    $("arrow-sample").setAttribute("width", String(Math.ceil(tip + 3)));
    $("arrows-words").textContent = data.key;
    $("stage").dataset.arrows = String(data.arrows.length);
  });
  map.addLayer(arrows.layer);
  const refresh = () => arrows.refresh().catch(told);
  toggle("show-arrows", true, (shown) => { arrows.layer.setVisible(shown); $("arrows-key").hidden = !shown; refresh(); });
  toggle("local-arrows", false, (local) => { arrows.part = local ? "local" : "whole"; refresh(); });
  map.on("moveend", refresh);
}

export function makePoints(map, scene, told) {
  if (!scene.points) return;
  const legend = scene.layers.residual ?? NEUTRAL;
  const points = new PointLayer(map, legend.colours, (data) => {
    const shown = data.points.length;
    $("points-count").textContent = shown < data.total ? `· ${shown} of ${data.total} in view, zoom in for all` : `· ${data.total} in view`;
    $("stage").dataset.points = String(shown);
  });
  map.addLayer(points.layer);
  const popup = new PointPopup(map, () => points.select(null));
  const refresh = () => points.refresh().catch(told);
  toggle("show-points", false, (shown) => {
    points.layer.setVisible(shown);
    $("points-key").hidden = !shown;
    if (shown) refresh(); else popup.close();
  });
  map.on("moveend", refresh);
  map.on("click", async (event) => {
    const id = points.at(event.pixel);
    if (id === null) { popup.close(); return; }
    try {
      popup.show(await (await fetch(`points/${id}.json`)).json());
      points.select(id);
    } catch (error) { told(error); }
  });
  map.on("pointermove", (event) => {
    map.getTargetElement().classList.toggle("on-point", !event.dragging && points.at(event.pixel) !== null);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") popup.close(); });
}
