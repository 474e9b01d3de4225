// The viewer: a map of the reference's pixels, the comparison on it, and what else the page offers.

import { Compare, clipTo, listenToKeys, showScale } from "./compare.js";
import { makeArrows, makeEdges, makeMaps, makePoints, shownEdges, tileLayer } from "./layers.js";
import { Link } from "./link.js";
import { Loupe } from "./loupe.js";
import { Places } from "./places.js";

const $ = (id) => document.getElementById(id);
const MAX_MAGNIFICATION = 32;
const STEP_PX = 128; // that an arrow key moves the map, screen pixels
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
  const interactions = ol.interaction.defaults.defaults({ altShiftDragRotate: false, pinchRotate: false, keyboard: false });
  const map = new ol.Map({ target: "map", view, controls: [], interactions, maxTilesLoading: 12 });
  return { map, projection, extent };
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
function makeCompare(map, layers, labels, changed) {
  const compare = new Compare(labels, (chosen) => {
    for (const [name, layer] of Object.entries(layers)) {
      layer.setZIndex(name === chosen.pair[1] ? 1 : 0);
      // In blink both stay visible, so that neither has to load when its turn comes.
      layer.setVisible(chosen.pair.includes(name));
      layer.setOpacity(chosen.opacity(name));
    }
    map.render();
    changed();
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
  clipTo(context, compare.parts(name, ...map.getSize()), (corner) => ol.render.getRenderPixel(event, corner));
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

function makeKeys(map, scene, { compare, places, loupe }) {
  const view = map.getView();
  // From where a step that still runs will end, so that steps in quick succession add up.
  let goal = null;
  const zoomBy = (factor) => {
    const end = view.getConstrainedResolution((goal ?? view.getResolution()) / factor);
    view.cancelAnimations();
    goal = end;
    view.animate({ resolution: end, duration: 120 }, () => { if (goal === end) goal = null; });
  };
  const moveBy = (x, y) => () => {
    const [left, down] = view.getCenter(), step = STEP_PX * view.getResolution();
    view.animate({ center: view.getConstrainedCenter([left + x * step, down + y * step]), duration: 100 });
  };
  const press = (id) => () => $(id)?.click();
  const [edges, otherEdges] = Object.keys(scene.edges).map((name) => press("show-" + name));
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("actual").addEventListener("click", () => view.animate({ resolution: 1, duration: 120 }));
  $("fit").addEventListener("click", () => fit(map, scene));
  $("show-keys").addEventListener("click", () => $("keys").showModal());
  listenToKeys(document, {
    ...compare.keys, 0: () => fit(map, scene), "?": press("show-keys"), Escape: () => places.leave(),
    a: press("show-arrows"), p: press("show-points"), x: press("show-error"),
    e: edges ?? (() => {}), E: otherEdges ?? (() => {}),
    "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5),
    n: () => places.step(1), N: () => places.step(-1), l: press("show-loupe"), b: () => loupe.toggleBefore(), c: press("link"),
  });
  // Elsewhere these scroll what has the focus.
  listenToKeys($("map"), { ArrowLeft: moveBy(-1, 0), ArrowRight: moveBy(1, 0), ArrowUp: moveBy(0, 1), ArrowDown: moveBy(0, -1) });
}

async function start() {
  const answer = await fetch("scene.json");
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const scene = await answer.json();
  const place = makeMap(scene), map = place.map;
  fit(map, scene);
  const images = Object.fromEntries(Object.keys(scene.images).map((name) => [name, tileLayer(name, scene, place, trouble)]));
  for (const layer of Object.values(images)) map.addLayer(layer);
  if (Object.keys(images).length === 0) throw new Error("None of the images can be shown; the notes say why.");
  let link = null;
  const compare = makeCompare(map, images, scene.images, () => link?.changed());
  makeMaps(map, scene, place, trouble);
  makeEdges(map, scene, place, compare, trouble);
  makeArrows(map, trouble);
  makePoints(map, scene, trouble);
  const places = new Places(map, scene.worst);
  const loupe = new Loupe(map, scene, () => shownEdges(scene));
  makeKeys(map, scene, { compare, places, loupe });
  map.getView().on("change:resolution", () => drawScale(map, scene));
  map.on("pointermove", (event) => showPlace(scene, event.coordinate));
  map.getViewport().addEventListener("pointerleave", () => { $("where").textContent = ""; });
  link = new Link(map, scene, compare, loupe);
  link.read();
  drawScale(map, scene);
  // For tests: how often everything in view had been loaded and drawn.
  let drawn = 0;
  map.on("rendercomplete", () => { $("stage").dataset.drawn = String(++drawn); });
}

start().catch(trouble);
