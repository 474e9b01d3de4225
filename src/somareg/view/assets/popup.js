// Boxes that lie beside a place of the map and never leave it, and the figures of a tie point in one of them.

const MARGIN = 8; // screen pixels that stay free at the rim of the map
const $ = (id) => document.getElementById(id);

// Puts a box beside (x, y) of the stage, above it where there is room, else below, and always whole inside the stage.
export function keepInside(box, [x, y], gap) {
  const stage = $("stage"), room = { w: stage.clientWidth - 2 * MARGIN, h: stage.clientHeight - 2 * MARGIN };
  box.style.maxWidth = room.w + "px";
  box.style.maxHeight = room.h + "px";
  const { offsetWidth: width, offsetHeight: height } = box;
  const inside = (start, size, length) => Math.max(MARGIN, Math.min(start, MARGIN + length - size));
  let left = x - width / 2, top = y - gap - height;
  if (top < MARGIN) top = y + gap;
  if (top + height > MARGIN + room.h) { // neither: beside it, on the side with more room
    top = y - height / 2;
    left = x > stage.clientWidth / 2 ? x - gap - width : x + gap;
  }
  box.style.left = inside(left, width, room.w) + "px";
  box.style.top = inside(top, height, room.h) + "px";
}

export class PointPopup {
  // closed: called when the reader closes it.
  constructor(map, closed) {
    this.map = map;
    this.box = $("popup");
    this.place = null;
    this.closed = closed;
    $("popup-close").addEventListener("click", () => this.close());
    map.on("postrender", () => this.#follow());
  }

  show(point) {
    $("popup-status").textContent = point.status;
    $("popup-status").className = "state " + (point.kept ? "good" : "poor");
    $("popup-rows").replaceChildren(...point.rows.map(([name, value]) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.scope = "row";
      head.textContent = name;
      cell.textContent = value;
      row.append(head, cell);
      return row;
    }));
    this.place = [point.x + 0.5, -point.y - 0.5];
    this.#follow();
  }

  close() {
    this.place = null;
    this.box.hidden = true;
    this.closed();
  }

  // Hidden while its point is out of sight.
  #follow() {
    if (!this.place) return;
    const at = this.map.getPixelFromCoordinate(this.place), [width, height] = this.map.getSize();
    this.box.hidden = !at || at[0] < 0 || at[1] < 0 || at[0] > width || at[1] > height;
    if (!this.box.hidden) keepInside(this.box, at, 14);
  }
}
