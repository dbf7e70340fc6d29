/* One drawing on the screen: what of it is visible, how it is moved and zoomed, and what is lit in it. */

const ZOOM = { least: 0.04, most: 3 };
const FAR = 0.42;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

class Pane {
  constructor(model, host, tell) {
    Object.assign(this, {
      model,
      host,
      tell,
      folds: new Folds(model),
      shown: new Map(),
      cursor: "",
      view: { x: 0, y: 0, k: 1 },
    });
    this.svg = host.querySelector("svg");
    this.scene = this.svg.querySelector(".scene");
    this.layers = Object.fromEntries(
      ["grounds", "lines", "boxes"].map((name) => [name, this.svg.querySelector(`.${name}`)]),
    );
    this.lit = { selected: -1, partner: -1, hovered: -1, marked: new Set() };
    listen(this);
    new ResizeObserver(() => this.refresh()).observe(this.svg);
  }

  get width() {
    return this.svg.clientWidth;
  }

  get height() {
    return this.svg.clientHeight;
  }

  /** The height that the panel leaves free where it lies over a drawing. */
  get free() {
    const [own, panel] = [this.svg, document.getElementById("panel")].map((each) => each.getBoundingClientRect());
    return panel.height && panel.top > own.top + 120 ? Math.min(own.height, panel.top - own.top) : own.height;
  }

  /** Lay out anew what is unfolded, and keep a box of a block where it is on the screen. */
  update(anchor = null) {
    const before = anchor && this.boxOf(anchor);
    this.drawing = arrange(this.folds);
    this.places = new Map(this.drawing.boxes.map((box) => [box.key, box]));
    for (const box of this.drawing.boxes.filter((each) => each.kind === "open")) {
      this.places.set(`h${box.block.id}`, { ...box, kind: "head", key: `h${box.block.id}`, h: 36 });
    }
    for (const line of this.drawing.lines) {
      const [xs, ys] = [line.points.map(([x]) => x), line.points.map(([, y]) => y)];
      line.rect = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    }
    const after = before && this.boxOf(anchor);
    if (after) {
      const { k } = this.view;
      this.view.x += (before.x + before.w / 2 - after.x - after.w / 2) * k;
      this.view.y += (before.y - after.y) * k;
    }
    this.clear();
    this.refresh();
  }

  boxOf(block) {
    return this.places?.get(`o${block.id}`) ?? this.places?.get(`b${block.id}`);
  }

  /** The box that a leaf is, or the folded one that it lies in. */
  holder(id) {
    const own = this.places.get(`l${id}`);
    if (own) return own;
    for (const block of this.model.around(id))
      if (this.places.has(`b${block.id}`)) return this.places.get(`b${block.id}`);
    return this.drawing.boxes.find((box) => box.kind === "rest" && box.leaves.includes(id));
  }

  clear() {
    for (const layer of Object.values(this.layers)) layer.replaceChildren();
    this.shown.clear();
    this.seen = null;
  }

  /** Apply the view, and draw what came into sight. */
  refresh() {
    if (!this.drawing || !this.width) return;
    const { x, y, k } = this.view;
    this.scene.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
    this.svg.classList.toggle("far", k < FAR);
    const [left, top, right, bottom] = [-x / k, -y / k, (this.width - x) / k, (this.height - y) / k];
    const seen = this.seen;
    if (seen && seen[0] <= left && seen[1] <= top && seen[2] >= right && seen[3] >= bottom) return;
    const margin = [(right - left) / 2, (bottom - top) / 2];
    this.seen = [left - margin[0], top - margin[1], right + margin[0], bottom + margin[1]];
    this.draw();
  }

  draw() {
    const [left, top, right, bottom] = this.seen;
    const wanted = new Set();
    const show = (thing, x0, y0, x1, y1, make) => {
      if (x1 < left || x0 > right || y1 < top || y0 > bottom) return;
      wanted.add(thing);
      if (!this.shown.has(thing)) this.shown.set(thing, make());
    };
    for (const box of this.drawing.boxes)
      show(box, box.x, box.y, box.x + box.w + 8, box.y + box.h + 8, () => this.addBox(box));
    for (const line of this.drawing.lines) show(line, ...line.rect, () => this.addLine(line));
    for (const [thing, shapes] of this.shown) {
      if (wanted.has(thing)) continue;
      shapes.forEach((each) => each.remove());
      this.shown.delete(thing);
    }
    this.light();
  }

  addBox(box) {
    const made = [card(this.model, box)];
    made[0].dataset.key = box.key;
    this.layers[box.kind === "open" ? "grounds" : "boxes"].append(made[0]);
    if (box.kind === "open") {
      made.push(headCard(this.model, box));
      made[1].dataset.key = `h${box.block.id}`;
      this.layers.boxes.append(made[1]);
    }
    for (const each of made) each.id = `${this.model.side}-${each.dataset.key}`;
    return made;
  }

  addLine(line) {
    const made = lineShape(line);
    this.layers.lines.append(made);
    return [made];
  }

  /** Show which boxes and lines are selected, partner, hovered or marked. */
  light() {
    const { selected, partner, hovered, marked } = this.lit;
    const touches = ({ from, to }) => from === selected || to === selected || from === hovered || to === hovered;
    for (const [thing, shapes] of this.shown) {
      if (thing.points) {
        shapes[0].classList.toggle("lit", thing.links.some(touches));
        continue;
      }
      const id = thing.kind === "leaf" ? thing.leaf.id : -2;
      const inside = (leaf) =>
        leaf >= 0 &&
        (id === leaf || ((thing.kind === "block" || thing.kind === "rest") && thing.leaves.includes(leaf)));
      const classes = shapes[0].classList;
      classes.toggle("selected", inside(selected));
      classes.toggle("partner", inside(partner));
      classes.toggle("hovered", inside(hovered));
      classes.toggle("marked", marked.has(id));
      for (const each of shapes) each.classList.toggle("cursor", each.dataset.key === this.cursor);
    }
    this.svg.setAttribute(
      "aria-activedescendant",
      this.places.has(this.cursor) ? `${this.model.side}-${this.cursor}` : "",
    );
  }

  /** Zoom by a factor about a point of the pane, its middle if none is given. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const k = Math.min(ZOOM.most, Math.max(ZOOM.least, this.view.k * factor));
    const by = k / this.view.k;
    this.go({ x: px - (px - this.view.x) * by, y: py - (py - this.view.y) * by, k });
    this.tell.zoomed(this, k);
  }

  pan(dx, dy) {
    this.go({ ...this.view, x: this.view.x + dx, y: this.view.y + dy });
  }

  go(view) {
    cancelAnimationFrame(this.moving);
    this.view = view;
    this.refresh();
  }

  /** Move to a view within a fifth of a second. */
  glide(view) {
    if (calm.matches || !this.seen) return this.go(view);
    cancelAnimationFrame(this.moving);
    const [from, start] = [this.view, performance.now()];
    const step = (now) => {
      const t = Math.min(1, (now - start) / 220);
      const ease = 1 - (1 - t) ** 3;
      this.view = Object.fromEntries(["x", "y", "k"].map((key) => [key, from[key] + (view[key] - from[key]) * ease]));
      this.refresh();
      if (t < 1) this.moving = requestAnimationFrame(step);
    };
    this.moving = requestAnimationFrame(step);
  }

  /** The view in which a rectangle fills the pane; of what is larger than the pane its top is seen. */
  around({ x, y, w, h, lead = x + w / 2 }, { least = ZOOM.least, most = 1.15, margin = 16 } = {}) {
    const room = [Math.max(40, this.width - 2 * margin), Math.max(40, this.free - 2 * margin)];
    const k = Math.min(most, Math.max(least, Math.min(room[0] / w, room[1] / h)));
    const top = h * k > room[1] ? margin : (this.free - h * k) / 2;
    const middle = w * k > room[0] && h * k > room[1] ? lead : x + w / 2;
    return { x: this.width / 2 - middle * k, y: top - y * k, k };
  }

  whole() {
    const { boxes, width, height } = this.drawing;
    return { x: 0, y: 0, w: width, h: height, lead: leader(boxes.filter((box) => box.kind !== "open")) };
  }

  /** The rectangle that is in sight. */
  sight() {
    const { x, y, k } = this.view;
    return { x: -x / k, y: -y / k, w: this.width / k, h: this.height / k };
  }

  sees(box) {
    const sight = this.sight();
    return (
      box.x >= sight.x && box.y >= sight.y && box.x + box.w <= sight.x + sight.w && box.y + box.h <= sight.y + sight.h
    );
  }

  /** The rectangle around the boxes of some leaves. */
  hull(ids) {
    const boxes = [...ids].map((id) => this.holder(id)).filter(Boolean);
    if (!boxes.length) return null;
    const [x, y] = [Math.min(...boxes.map((box) => box.x)), Math.min(...boxes.map((box) => box.y))];
    const [right, bottom] = [
      Math.max(...boxes.map((box) => box.x + box.w)),
      Math.max(...boxes.map((box) => box.y + box.h)),
    ];
    return { x, y, w: right - x, h: bottom - y, lead: leader(boxes) };
  }

  /** Move the cursor to the nearest box in a direction, or to the one in the middle, and bring it into sight. */
  step([dx, dy]) {
    const { x, y, k } = this.view;
    const here = this.places.get(this.cursor);
    const at = here
      ? [here.x + here.w / 2, here.y + here.h / 2]
      : [(this.width / 2 - x) / k, (this.height / 2 - y) / k];
    let best = null;
    for (const box of this.places.values()) {
      if (box.kind === "open" || box === here) continue;
      const [a, b] = [box.x + box.w / 2 - at[0], box.y + box.h / 2 - at[1]];
      const [along, aside] = [a * dx + b * dy, Math.abs(a * dy) + Math.abs(b * dx)];
      const far = here ? along + 2 * aside : Math.hypot(a, b);
      if ((!here || along > 4) && (!best || far < best.far)) best = { far, box };
    }
    if (!best) return;
    const { box } = best;
    this.cursor = box.key;
    const [left, top] = [box.x * k + x, box.y * k + y];
    const shift = (low, high, room) => (low < 12 ? 12 - low : high > room - 12 ? room - 12 - high : 0);
    this.pan(shift(left, left + box.w * k, this.width), shift(top, top + box.h * k, this.height));
    this.light();
  }

  /** Bring a leaf into sight, if it is not. */
  seek(id) {
    const box = this.hull([id]);
    if (!box) return;
    const k = Math.max(this.view.k, 0.75);
    const [left, top] = [box.x * k + this.view.x, box.y * k + this.view.y];
    const visible =
      k === this.view.k && left > 8 && top > 8 && left + box.w * k < this.width - 8 && top + box.h * k < this.free - 8;
    if (visible) return;
    this.glide({ x: this.width / 2 - (box.x + box.w / 2) * k, y: this.free / 2 - (box.y + box.h / 2) * k, k });
    this.tell.zoomed(this, k);
  }
}

/** The middle of the topmost boxes. */
function leader(boxes) {
  if (!boxes.length) return undefined;
  const top = Math.min(...boxes.map((box) => box.y));
  const first = boxes.filter((box) => box.y < top + 40);
  return first.reduce((sum, box) => sum + box.x + box.w / 2, 0) / first.length;
}

/** Listen to what a person does in a pane. */
function listen(pane) {
  const { svg, tell } = pane;
  const held = new Map();
  let [moved, target] = [0, null];
  const spot = (event) => {
    const rect = svg.getBoundingClientRect();
    return [event.clientX - rect.left, event.clientY - rect.top];
  };
  const boxAt = (event) => pane.places.get(event.target.closest?.(".box")?.dataset.key);

  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    if (!held.size) [moved, target] = [0, boxAt(event)];
    held.set(event.pointerId, spot(event));
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) {
      const box = boxAt(event);
      tell.hovered(pane, box?.kind === "leaf" ? box.leaf.id : -1);
      return;
    }
    const [was, now] = [held.get(event.pointerId), spot(event)];
    moved += Math.hypot(now[0] - was[0], now[1] - was[1]);
    if (held.size === 2) pinch(pane, held, event.pointerId, now);
    else if (moved > 4) pane.pan(now[0] - was[0], now[1] - was[1]);
    held.set(event.pointerId, now);
  });
  svg.addEventListener("pointerup", (event) => {
    const alone = held.size === 1;
    held.delete(event.pointerId);
    if (alone && moved <= 4) tell.clicked(pane, target);
  });
  svg.addEventListener("pointercancel", (event) => held.delete(event.pointerId));
  svg.addEventListener("pointerleave", () => tell.hovered(pane, -1));
  svg.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      pane.zoom(2 ** (-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.0016)), ...spot(event));
    },
    { passive: false },
  );
  svg.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !tell.pressed(pane, event.key, event.shiftKey)) return;
    event.preventDefault();
  });
}

function pinch(pane, held, moving, now) {
  const [still] = [...held].filter(([id]) => id !== moving).map(([, at]) => at);
  const was = held.get(moving);
  const [before, after] = [was, now].map((at) => Math.hypot(at[0] - still[0], at[1] - still[1]));
  pane.pan((now[0] - was[0]) / 2, (now[1] - was[1]) / 2);
  if (before > 10) pane.zoom(after / before, (now[0] + still[0]) / 2, (now[1] + still[1]) / 2);
}
