import { Compare, showScale } from "./compare.js";
import { ArrowLayer, PointLayer } from "./marks.js";

const $ = (id) => document.getElementById(id);
const MAX_MAGNIFICATION = 32;
const NEUTRAL = { colours: ["#2a9d8f"] };
const MAGNIFIED = 2; // screen pixels per image pixel from which pixels stay squares: smoothing would hide a step

// One answer is worth one sentence to the reader, not a silent empty map.
function trouble(error) {
  $("trouble").textContent = String(error.message ?? error) || "The server does not answer.";
  $("trouble").hidden = false;
}

// The map's coordinates are reference pixels from the corner of the first pixel, x right, y up (so rows are negative).
function makeMap(scene) {
  const extent = [0, -scene.height, scene.width, 0];
  const projection = new ol.proj.Projection({ code: "reference-pixels", units: "pixels", extent });
  const view = new ol.View({
    projection, extent, showFullExtent: true, smoothExtentConstraint: false, constrainOnlyCenter: true, enableRotation: false,
    center: [scene.width / 2, -scene.height / 2],
    maxResolution: 4 * scene.steps[0],
    minResolution: 1 / MAX_MAGNIFICATION,
    resolution: scene.steps[0],
  });
  const interactions = ol.interaction.defaults.defaults({ altShiftDragRotate: false, pinchRotate: false });
  const map = new ol.Map({ target: "map", view, controls: [], interactions, maxTilesLoading: 12 });
  return { map, projection, extent };
}

function tileLayer(name, scene, { projection, extent }, options) {
  const tileGrid = new ol.tilegrid.TileGrid({ extent, origin: [0, 0], resolutions: scene.steps, tileSize: scene.tile });
  const source = new ol.source.TileImage({
    projection, tileGrid, wrapX: false, transition: 0,
    tileUrlFunction: ([level, column, row]) => `tiles/${name}/${level}/${column}/${row}.png`,
  });
  source.on("tileloaderror", () => trouble(`A picture of "${name}" could not be read; see the terminal.`));
  return new ol.layer.Tile({ source, extent, ...options });
}

function fit(map, scene) {
  map.getView().fit([0, -scene.height, scene.width, 0], { size: map.getSize(), padding: [8, 8, 8, 8] });
}

// Words on the map: zoom and scale bar.
function drawScale(map, scene) {
  const resolution = map.getView().getResolution();
  $("zoom").textContent = Math.round(100 / resolution) + " %";
  showScale(resolution, scene.metres);
}

// The comparison of the layers of the images: one above the other, each clipped to its part.
function makeCompare(map, layers, labels) {
  const compare = new Compare(labels, (chosen) => {
    for (const [name, layer] of Object.entries(layers)) {
      layer.setZIndex(name === chosen.pair[1] ? 1 : 0);
      // In blink both stay visible, so that neither has to load when its turn comes.
      layer.setVisible(chosen.pair.includes(name));
      layer.setOpacity(chosen.opacity(name));
    }
    map.render();
  });
  for (const [name, layer] of Object.entries(layers)) {
    layer.on("prerender", (event) => clip(compare, map, name, event));
    layer.on("postrender", (event) => event.context.restore());
  }
  return compare;
}

function clip(compare, map, name, event) {
  const context = event.context;
  context.save();
  const scale = event.frameState.pixelRatio / event.frameState.viewState.resolution;
  context.imageSmoothingEnabled = scale < MAGNIFIED;
  const parts = compare.parts(name, ...map.getSize());
  if (parts === null) return;
  context.beginPath();
  for (const [x, y, width, height] of parts) {
    const [left, top] = ol.render.getRenderPixel(event, [x, y]);
    const [right, bottom] = ol.render.getRenderPixel(event, [x + width, y + height]);
    context.rect(left, top, right - left, bottom - top);
  }
  context.clip();
}

function showPlace(scene, coordinate) {
  const [x, y] = [coordinate[0], -coordinate[1]]; // from the corner
  const inside = x >= 0 && y >= 0 && x < scene.width && y < scene.height;
  let words = `x ${Math.floor(x)}, y ${Math.floor(y)}`;
  if (scene.transform) {
    const [a, b, c, d, e, f] = scene.transform;
    const digits = Math.max(0, Math.ceil(-Math.log10(Math.hypot(a, d))) + 1);
    words += `  ·  ${(a * x + b * y + c).toFixed(digits)}, ${(d * x + e * y + f).toFixed(digits)} ${scene.crs ?? ""}`;
  }
  $("where").textContent = inside ? words : "";
}

function paintLegends(scene) {
  for (const [name, legend] of Object.entries(scene.layers)) {
    const box = $("legend-" + name), canvas = box.querySelector("canvas"), context = canvas.getContext("2d");
    const ramp = context.createLinearGradient(0, 0, canvas.width, 0);
    legend.colours.forEach((colour, i) => ramp.addColorStop(i / (legend.colours.length - 1), colour));
    context.fillStyle = ramp;
    context.fillRect(0, 0, canvas.width, 1);
    box.querySelector(".low").textContent = legend.low;
    box.querySelector(".high").textContent = legend.high;
  }
}

function makeOverlays(map, scene, place) {
  const opacity = () => Number($("opacity").value) / 100;
  const layers = Object.fromEntries(Object.keys(scene.layers).map((name) => {
    // A canvas of its own: what is clipped between the images must not clip it.
    const layer = tileLayer(name, scene, place, { visible: scene.layers[name].first, opacity: opacity(), zIndex: 10, className: "ol-layer overlay-" + name });
    map.addLayer(layer);
    return [name, layer];
  }));
  for (const input of document.querySelectorAll("input.overlay")) {
    input.checked = scene.layers[input.value].first;
    $("legend-" + input.value).hidden = !input.checked;
    input.addEventListener("change", () => {
      layers[input.value].setVisible(input.checked);
      $("legend-" + input.value).hidden = !input.checked;
    });
  }
  $("opacity").addEventListener("input", () => Object.values(layers).forEach((layer) => layer.setOpacity(opacity())));
}

function makeArrows(map) {
  const arrows = new ArrowLayer(map, (data) => {
    const length = Math.min(data.key_px * data.factor / map.getView().getResolution(), 112);
    const tip = 2 + length;
    $("arrow-sample").firstElementChild.setAttribute("d", length < 4 ? "" : `M2 7H${tip}M${tip - 6} 3L${tip} 7L${tip - 6} 11`);
    $("arrow-sample").setAttribute("width", String(Math.ceil(tip + 3)));
    $("arrows-words").textContent = data.key;
    $("stage").dataset.arrows = String(data.arrows.length);
  });
  map.addLayer(arrows.layer);
  const refresh = () => arrows.refresh().catch(trouble);
  toggle("show-arrows", true, (shown) => { arrows.layer.setVisible(shown); $("arrows-key").hidden = !shown; refresh(); });
  toggle("local-arrows", false, (local) => { arrows.part = local ? "local" : "whole"; refresh(); });
  map.on("moveend", refresh);
}

function makePoints(map, scene) {
  if (!scene.points) return;
  const legend = scene.layers.residual ?? NEUTRAL;
  const points = new PointLayer(map, legend.colours, (data) => {
    const shown = data.points.length;
    $("points-count").textContent = shown < data.total ? `· ${shown} of ${data.total} in view, zoom in for all` : `· ${data.total} in view`;
    $("stage").dataset.points = String(shown);
  });
  const box = $("popup"); // leaves the page until it has a place
  const parts = { status: $("popup-status"), rows: $("popup-rows") };
  const popup = new ol.Overlay({ element: box, positioning: "bottom-center", offset: [0, -14], autoPan: { margin: 12 } });
  box.querySelector("#popup-close").addEventListener("click", () => close());
  box.hidden = false;
  map.addLayer(points.layer);
  map.addOverlay(popup);
  const close = () => { popup.setPosition(undefined); points.select(null); };
  const refresh = () => points.refresh().catch(trouble);
  toggle("show-points", false, (shown) => {
    points.layer.setVisible(shown);
    $("points-key").hidden = !shown;
    if (shown) refresh(); else close();
  });
  map.on("moveend", refresh);
  map.on("click", async (event) => {
    const id = points.at(event.pixel);
    if (id === null) { close(); return; }
    try { showPoint(await (await fetch(`points/${id}.json`)).json(), popup, points, parts); } catch (error) { trouble(error); }
  });
  map.on("pointermove", (event) => {
    map.getTargetElement().classList.toggle("on-point", !event.dragging && points.at(event.pixel) !== null);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
}

function showPoint(point, popup, points, parts) {
  parts.status.textContent = point.status;
  parts.status.className = "state " + (point.kept ? "good" : "poor");
  parts.rows.replaceChildren(...point.rows.map(([name, value]) => {
    const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
    head.scope = "row";
    head.textContent = name;
    cell.textContent = value;
    row.append(head, cell);
    return row;
  }));
  points.select(point.id);
  popup.setPosition([point.x + 0.5, -point.y - 0.5]);
}

// Buttons that lead to places, in reference pixels.
function makePlaces(map) {
  const view = map.getView();
  for (const button of document.querySelectorAll("button.place")) {
    button.addEventListener("click", () => {
      const center = [Number(button.dataset.x) + 0.5, -Number(button.dataset.y) - 0.5];
      view.animate({ center, resolution: Math.min(view.getResolution(), 0.5), duration: 200 });
    });
  }
}

// A checkbox that may not be on the page; a browser may have kept its state over a reload, the page starts from its own.
function toggle(id, start, then) {
  const input = $(id);
  if (!input) return;
  input.checked = start;
  input.addEventListener("change", () => then(input.checked));
}

function makeKeys(map, scene, compare) {
  const view = map.getView();
  const zoomBy = (factor) => view.animate({ resolution: view.getConstrainedResolution(view.getResolution() / factor), duration: 120 });
  const press = (id) => $(id)?.click();
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("actual").addEventListener("click", () => view.animate({ resolution: 1, duration: 120 }));
  $("fit").addEventListener("click", () => fit(map, scene));
  const keys = {
    ...compare.keys, 0: () => fit(map, scene), a: () => press("show-arrows"), p: () => press("show-points"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    // Space and digits mean something else to a control that has the focus.
    if (event.target.closest("button, input, select, summary, a")) return;
    event.preventDefault();
    keys[event.key]();
  });
}

async function start() {
  const answer = await fetch("scene.json");
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const scene = await answer.json();
  const place = makeMap(scene), map = place.map;
  fit(map, scene);
  const images = Object.fromEntries(Object.keys(scene.images).map((name) => [name, tileLayer(name, scene, place)]));
  for (const layer of Object.values(images)) map.addLayer(layer);
  if (Object.keys(images).length === 0) throw new Error("None of the images can be shown; the notes say why.");
  makeOverlays(map, scene, place);
  paintLegends(scene);
  makeArrows(map);
  makePoints(map, scene);
  makePlaces(map);
  const compare = makeCompare(map, images, scene.images);
  makeKeys(map, scene, compare);
  map.getView().on("change:resolution", () => drawScale(map, scene));
  map.on("pointermove", (event) => showPlace(scene, event.coordinate));
  map.getViewport().addEventListener("pointerleave", () => { $("where").textContent = ""; });
  drawScale(map, scene);
  // For tests: how often everything in view had been loaded and drawn.
  let drawn = 0;
  map.on("rendercomplete", () => { $("stage").dataset.drawn = String(++drawn); });
}

start().catch(trouble);
