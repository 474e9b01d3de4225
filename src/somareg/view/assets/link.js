// What is seen, in the part of the address after "#": place, zoom, view, images, layers. Written as it changes, read back.

const SETTLED_MS = 250;

const $ = (id) => document.getElementById(id);
const boxes = () => [...document.querySelectorAll("input[data-layer]")];

export class Link {
  constructor(map, scene, compare, loupe) {
    Object.assign(this, { map, scene, compare, loupe, timer: 0, written: "" });
    window.addEventListener("hashchange", () => { if (location.hash !== this.written) this.read(); });
    map.on("moveend", () => this.changed());
    $("panel").addEventListener("change", () => this.changed());
    loupe.changed = () => this.changed();
    $("link").addEventListener("click", () => this.copy());
  }

  // Once nothing has changed for a moment: browsers refuse addresses that change all the time.
  changed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.write(), SETTLED_MS);
  }

  write() {
    clearTimeout(this.timer);
    const view = this.map.getView(), [x, y] = view.getCenter();
    const words = {
      at: [x, -y].map((value) => +value.toFixed(2)).join(","),
      zoom: +(100 / view.getResolution()).toPrecision(6),
      ...this.compare.state,
      layers: boxes().filter((box) => box.checked).map((box) => box.dataset.layer).join(","),
      opacity: $("opacity").value,
      loupe: this.loupe.isOpen ? "on" : "off",
    };
    this.written = "#" + Object.entries(words).map((pair) => pair.join("=")).join("&");
    if (location.hash !== this.written) history.replaceState(null, "", this.written);
    $("stage").dataset.link = this.written;
  }

  // True where the address says what to show. It may come from anybody: what makes no sense changes nothing.
  read() {
    const said = Object.fromEntries(location.hash.slice(1).split("&").map((pair) => pair.split("=")));
    const numbers = (text) => (text ?? "").split(",").map((value) => (value.trim() ? Number(value) : NaN));
    const [x, y] = numbers(said.at), [zoom] = numbers(said.zoom), [opacity] = numbers(said.opacity);
    const isPlaced = Number.isFinite(x) && Number.isFinite(y) && zoom > 0;
    if (isPlaced) {
      const view = this.map.getView();
      view.cancelAnimations();
      view.setCenter([x, -y]);
      view.setResolution(100 / zoom);
    }
    if (said.view || said.pair) this.compare.restore(said);
    if (said.layers !== undefined) {
      const named = said.layers.split(",");
      for (const box of boxes()) if (box.checked !== named.includes(box.dataset.layer)) box.click();
    }
    if (Number.isFinite(opacity)) {
      $("opacity").value = String(opacity);
      $("opacity").dispatchEvent(new Event("input"));
    }
    if (said.loupe) this.loupe.toggle(said.loupe === "on");
    return isPlaced;
  }

  async copy() {
    this.write();
    const button = $("link"), label = button.textContent;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch { // the browser does not allow it: the address bar has the same
      button.textContent = "It is in the address bar";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }
}
