/* The page as a whole: it puts the parts in their places, and what is done in one of them reaches the others. */

const MOST_BOXES = 2500;
const FEW = 60;

class Page {
  constructor(models) {
    this.models = models;
    this.panel = document.getElementById("panel");
    this.side = document.getElementById("side");
    this.visited = null;
    this.selected = null;
    this.build();
  }

  build() {
    const { models } = this;
    const files = models.map(fileOf);
    const alike = models.length > 1 && files[0] === files[1];
    document.querySelector("h1").textContent = (alike ? models.map((model) => model.name) : files).join(" → ");
    this.side.querySelector(".cost").append(costTable(models));
    this.list = this.side.querySelector(".list");
    if (models.length > 1) this.list.append(changeList(DATA.groups));
    else this.side.querySelector("details").hidden = true;
    const told = ["zoomed", "hovered", "clicked", "pressed"];
    const tell = Object.fromEntries(told.map((name) => [name, (...all) => this[name](...all)]));
    this.panes = models.map((model) => new Pane(model, frameOf(model, models.length > 1), tell));
    this.listen();
  }

  listen() {
    const acts = {
      fold: () => this.foldAll(),
      unfold: () => this.unfoldAll(),
      changed: () => this.onlyChanged(),
      in: () => this.panes[0].zoom(1.3),
      out: () => this.panes[0].zoom(1 / 1.3),
      fit: () => this.fit(),
      theme: toggleTheme,
      close: () => this.deselect(),
    };
    for (const [name, act] of Object.entries(acts)) document.getElementById(name).addEventListener("click", act);
    document.getElementById("changed").hidden = this.models.length < 2;
    listenSearch(this.models, document.getElementById("query"), document.getElementById("hits"));
    document.addEventListener("keydown", (event) => this.anywhere(event));
  }

  /** Open the page on what a reader wants to see first. */
  start() {
    const touched = this.models.flatMap((model) => model.leaves.filter((leaf) => leaf.state)).length;
    const drawn = DATA.groups.flatMap((group, index) =>
      group.places.flatMap((place, at) => (place.before.length + place.after.length ? [[index, at]] : [])),
    );
    this.panes.forEach((pane) => pane.update());
    if (drawn.length === 1 && touched <= FEW && !this.isNarrow()) this.visit(...drawn[0]);
    else if (touched && touched <= FEW) this.onlyChanged();
    else if (this.models.every((model) => model.size <= FEW)) this.unfoldAll();
    else this.fit();
  }

  // What the panes tell

  zoomed(from, k) {
    for (const pane of this.panes) {
      if (pane === from || !pane.drawing) continue;
      const by = k / pane.view.k;
      const [x, y] = [pane.width / 2, pane.height / 2];
      pane.go({ x: x - (x - pane.view.x) * by, y: y - (y - pane.view.y) * by, k });
    }
  }

  hovered(from, id) {
    if (from.lit.hovered === id) return;
    const partner = id >= 0 ? from.model.leaves[id].partner : -1;
    this.panes.forEach((pane) => {
      pane.lit.hovered = pane === from ? id : partner;
      pane.svg.classList.toggle("hovering", pane.lit.hovered >= 0);
      pane.light();
    });
  }

  clicked(from, box) {
    if (!box || box.kind === "open") return this.deselect();
    from.cursor = box.key;
    if (box.kind === "leaf") return this.select(this.panes.indexOf(from), box.leaf.id);
    if (box.kind === "rest") return this.showRest(from, box.block);
    return this.fold(box.block.key, box.kind === "block", from);
  }

  pressed(pane, key, shift) {
    const acts = {
      "+": () => pane.zoom(1.25),
      "=": () => pane.zoom(1.25),
      "-": () => pane.zoom(0.8),
      0: () => this.fit(),
      Enter: () => this.clicked(pane, pane.places.get(pane.cursor) ?? null),
      " ": () => this.clicked(pane, pane.places.get(pane.cursor) ?? null),
    };
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    if (way && shift) pane.pan(-60 * way[0], -60 * way[1]);
    else if (way) pane.step(way);
    else if (acts[key]) acts[key]();
    else return false;
    return true;
  }

  anywhere(event) {
    const typing = event.target.closest?.("input");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      document.getElementById("query").focus();
    } else if (event.key === "Escape" && !typing) this.deselect();
  }

  // Folding

  /** Fold or unfold a block on both sides. */
  fold(key, open, from) {
    const unfolded = this.panes.map(() => null);
    for (const [side, pane] of this.panes.entries()) {
      const block = pane.model.byKey.get(key);
      if (!block || pane.folds.open.has(block.id) === open) continue;
      if (open && pane.folds.size() + block.leaves.length > MOST_BOXES) {
        this.say(`Not unfolded: more than ${MOST_BOXES.toLocaleString("en")} boxes would be drawn; fold others first.`);
        continue;
      }
      pane.folds.set(block, open);
      pane.update(block);
      if (open) unfolded[side] = pane.boxOf(block);
      if (pane === from) pane.cursor = `${open ? "h" : "b"}${block.id}`;
      pane.light();
    }
    this.lookAt(unfolded);
  }

  /** Move, if what was unfolded is not in sight. */
  lookAt(boxes) {
    const out = boxes.some((box, side) => box && !this.panes[side].sees(box));
    if (out)
      this.look(
        boxes.map((box, side) => box ?? this.panes[side].sight()),
        0.6,
        24,
      );
  }

  showRest(pane, block) {
    pane.folds.kept.delete(block.id);
    pane.folds.touch(block);
    pane.update(block);
  }

  foldAll() {
    this.panes.forEach((pane) => {
      pane.folds.clear();
      pane.update();
    });
    this.fit();
  }

  unfoldAll() {
    let left = 0;
    this.panes.forEach((pane) => {
      pane.folds.clear();
      left += openAll(pane.folds);
      pane.update();
    });
    if (left)
      this.say(
        `${left.toLocaleString("en")} blocks stay folded: no more than ${MOST_BOXES.toLocaleString("en")} boxes are drawn at once.`,
      );
    this.fit();
  }

  /** Unfold what changed and its neighbours, fold all else. */
  onlyChanged() {
    const touched = this.models.map((model) => model.leaves.filter((leaf) => leaf.state).map((leaf) => leaf.id));
    if (touched.some((ids) => ids.length > MOST_BOXES)) {
      this.say(`More than ${MOST_BOXES.toLocaleString("en")} nodes changed; the first of them are unfolded.`);
    }
    this.expose(touched, 1);
    this.fit(touched);
  }

  /** Unfold some leaves on each side and what is near them, fold all else. */
  expose(sides, steps) {
    this.panes.forEach((pane, side) => {
      pane.folds.clear();
      pane.folds.reveal(sides[side].slice(0, MOST_BOXES), pane.model.near(sides[side], steps));
      pane.update();
    });
  }

  // Looking

  /** Bring all, or some leaves of each side, into sight at one scale. */
  fit(sides = null) {
    this.look(
      this.panes.map((pane, side) => (sides && pane.hull(sides[side])) || pane.whole()),
      sides ? 0.6 : 0.5,
      sides ? 44 : 12,
    );
  }

  /** Bring a rectangle of each side into sight at one scale. */
  look(hulls, least, margin) {
    const options = { least, margin };
    const most = Math.min(1.15, ...this.panes.map((pane, side) => pane.around(hulls[side], options).k));
    // One height for all, so that they begin on one line.
    const h = Math.max(...hulls.map((hull) => hull.h));
    this.panes.forEach((pane, side) =>
      pane.glide(pane.around({ ...hulls[side], h }, { ...options, most, least: most })),
    );
  }

  /** Select a leaf: light it and its partner, or what stands in its place, bring both into sight, and tell about them. */
  select(side, id) {
    const { partner } = this.models[side].leaves[id];
    this.selected = { side, id };
    if (!this.panes[side].lit.marked.has(id)) this.leave();
    const others = partner >= 0 ? [partner] : insteadOf(this.models[side].leaves[id], side);
    this.panes.forEach((pane, at) => {
      const shown = at === side ? [id] : others;
      Object.assign(pane.lit, { selected: at === side ? id : -1, partner: at === side ? -1 : partner });
      if (at !== side && partner < 0) pane.lit.marked = new Set(others);
      if (shown.some((each) => !pane.places.has(`l${each}`))) {
        pane.folds.reveal(shown);
        pane.update();
      }
      if (at === side) pane.cursor = `l${id}`;
      pane.light();
    });
    this.open(leafPanel(this.models, side, id));
    this.panes.forEach((pane, at) => (at === side ? pane.seek(id) : others.length && pane.seek(others[0])));
  }

  isSelected({ side, id }) {
    return this.selected?.side === side && this.selected.id === id;
  }

  deselect() {
    this.selected = null;
    this.leave();
    this.panes.forEach((pane) => {
      Object.assign(pane.lit, { selected: -1, partner: -1 });
      pane.light();
    });
    this.panel.hidden = true;
  }

  /** Leave the change that was visited. */
  leave() {
    this.visited = null;
    this.panes.forEach((pane) => (pane.lit.marked = new Set()));
    markChange(this.list, -1, 0);
  }

  /** Go to one place of a group of changes. */
  visit(group, at) {
    const place = DATA.groups[group].places[at];
    const marked = [place.before, place.after];
    this.selected = null;
    this.visited = { group, at };
    markChange(this.list, group, at);
    this.open(changePanel(this.models, group, at));
    const shown = this.panes.map((_, side) =>
      marked[side].length ? marked[side] : this.beside(side, marked[1 - side], place.where),
    );
    this.panes.forEach((pane, side) =>
      Object.assign(pane.lit, { selected: -1, partner: -1, marked: new Set(marked[side]) }),
    );
    if (!shown.some((ids) => ids.length)) return this.panes.forEach((pane) => pane.light());
    this.expose(shown, Math.max(...marked.map((ids) => ids.length)) > 8 ? 1 : 2);
    this.fit(shown);
  }

  step(group, by) {
    const { places } = DATA.groups[group];
    const at = this.visited?.group === group ? this.visited.at + by : 0;
    this.visit(group, (at + places.length) % places.length);
  }

  /** What to show on a side on which a change has no nodes: the partners of its neighbours, or the input it names. */
  beside(side, others, where) {
    const other = this.models[1 - side];
    for (let steps = 1; others.length && steps < 5; steps++) {
      const partners = [...other.near(others, steps)].map((id) => other.leaves[id].partner).filter((id) => id >= 0);
      if (partners.length) return partners;
    }
    return others.length
      ? []
      : this.models[side].leaves
          .filter((leaf) => leaf.kind !== "node" && where && leaf.name === where)
          .map((leaf) => leaf.id);
  }

  open(parts) {
    this.panel.hidden = false;
    this.panel.querySelector(".body").replaceChildren(...parts.filter(Boolean));
    this.panel.querySelector(".body").scrollTop = 0;
    if (this.isNarrow()) document.getElementById("stage").scrollIntoView({ block: "start" });
    // The drawings have less room now, and what comes next reckons with it.
    this.panes.forEach((pane) => pane.refresh());
  }

  /** Whether all stands below each other, as the style says. */
  isNarrow() {
    return matchMedia("(max-width: 860px)").matches;
  }

  say(text) {
    const place = document.getElementById("said");
    place.textContent = text;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => (place.textContent = ""), 6000);
  }
}

/** What came on the other side where a leaf went, or went where it came. */
function insteadOf(leaf, side) {
  const places = leaf.notes.map(({ group, at }) => DATA.groups[group].places[at]);
  return [...new Set(places.flatMap((place) => (side ? place.before : place.after)))];
}

/** Open blocks, outer ones first, as long as there is room; return how many stay folded. */
function openAll(folds) {
  const { model } = folds;
  let boxes = folds.size();
  let left = 0;
  const pending = [...model.root.blocks];
  while (pending.length) {
    const block = pending.shift();
    boxes += block.leaves.length + block.blocks.length;
    if (boxes > MOST_BOXES) {
      boxes -= block.leaves.length + block.blocks.length;
      left += 1;
      continue;
    }
    folds.set(block, true);
    pending.push(...block.blocks);
  }
  return left;
}

/** Put the frame of a drawing on the page. */
function frameOf(model, isPair) {
  const frame = document.getElementById("pane").content.firstElementChild.cloneNode(true);
  const side = isPair ? ["before", "after"][model.side] : "";
  if (side) frame.querySelector("h2").append(make("span", { class: "side", text: side }));
  frame.querySelector("h2").append(make("span", { text: fileOf(model), title: model.name }));
  frame.querySelector(".facts").textContent = factsOf(model);
  const keys = "arrows go from box to box, Enter opens one, plus and minus zoom, 0 fits";
  frame.querySelector("svg").setAttribute("aria-label", `graph ${side || fileOf(model)}; ${keys}`);
  document.getElementById("panes").append(frame);
  return frame;
}

function fileOf(model) {
  return model.name.split(/[\\/]/).pop();
}

function factsOf(model) {
  const opsets = Object.entries(model.data.opsets)
    .map(([domain, version]) => `${domain} ${version}`)
    .join(", ");
  const constants = model.data.cost[0] > model.size ? " without constants" : "";
  return `${model.size.toLocaleString("en")} nodes${constants} · ${opsets}`;
}

function toggleTheme() {
  const { dataset } = document.documentElement;
  const dark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  dataset.theme = dark ? "light" : "dark";
}

const page = new Page(readModels(DATA));
page.start();
