/* Where everything stands that is unfolded. Each unfolded block is drawn by itself, with ports at its rim for the
   values that come in and go out, and then is one box in what is around it: so what one unfolds moves nothing inside
   other blocks, and is drawn anew alone. */

const FEWEST_ELIDED = 12;
const PADDING = { side: 16, head: 34, foot: 14 };

/** What of a model is shown: which blocks are open, and which leaves an open block keeps while it elides the others. */
class Folds {
  constructor(model) {
    this.model = model;
    this.open = new Set();
    this.kept = new Map();
    this.drawn = new Map();
  }

  /** Forget what was drawn of a block and of all around it. */
  touch(block) {
    for (let each = block; each; each = each.parent) this.drawn.delete(each.id);
  }

  set(block, open) {
    if (open) this.open.add(block.id);
    else this.open.delete(block.id);
    this.kept.delete(block.id);
    this.touch(block);
  }

  clear() {
    this.open.clear();
    this.kept.clear();
    this.drawn.clear();
  }

  /** Open all blocks around some leaves; with `near`, elide what lies outside of it in long ones. */
  reveal(ids, near = null) {
    for (const id of ids) {
      for (const block of this.model.around(id)) {
        const isOpen = this.open.has(block.id);
        const isElided = isOpen && !near && this.kept.has(block.id) && !this.kept.get(block.id).has(id);
        if (isOpen && !isElided) continue;
        this.open.add(block.id);
        if (near) this.kept.set(block.id, near);
        else this.kept.delete(block.id);
        this.touch(block);
      }
    }
  }

  /** How many boxes are shown. */
  size(block = this.model.root) {
    return block.blocks.reduce(
      (sum, each) => sum + 1 + (this.open.has(each.id) ? this.size(each) : 0),
      block.leaves.length,
    );
  }
}

/** Return the boxes and lines of all that is shown, in coordinates of the whole drawing. */
function arrange(folds) {
  const drawn = contents(folds, folds.model.root);
  const found = { width: drawn.w, height: drawn.h, boxes: [], lines: [] };
  flatten(drawn, 0, 0, found);
  return found;
}

function flatten(drawn, x, y, found) {
  for (const box of drawn.boxes) {
    found.boxes.push({ ...box, x: box.x + x, y: box.y + y });
    if (box.inside) flatten(box.inside, box.x + x, box.y + y, found);
  }
  for (const line of drawn.lines) found.lines.push({ ...line, points: line.points.map(([a, b]) => [a + x, b + y]) });
}

/** Draw what lies directly in a block. */
function contents(folds, block) {
  const known = folds.drawn.get(block.id);
  if (known) return known;
  const items = itemsOf(folds, block);
  const { vertices, nets } = graphOf(folds.model, block, items);
  const height = layered(vertices, nets);
  const drawn = framed(folds.model, block, vertices, nets, height);
  folds.drawn.set(block.id, drawn);
  return drawn;
}

/** The items of a block: leaves, blocks, and elided runs of both. */
function itemsOf(folds, block) {
  const { model } = folds;
  const kept = folds.kept.get(block.id);
  const items = [
    ...block.leaves.map((id) => ({
      kind: "leaf",
      key: `l${id}`,
      leaves: [id],
      leaf: model.leaves[id],
      ...leafSize(model, id),
    })),
    ...block.blocks.map((each) => blockItem(folds, each)),
  ].sort((a, b) => rankOf(model, a) - rankOf(model, b));
  return kept && items.length > FEWEST_ELIDED ? elided(model, block, items, kept) : items;
}

function blockItem(folds, block) {
  if (!folds.open.has(block.id)) {
    return { kind: "block", key: `b${block.id}`, block, leaves: block.all, ...blockSize(folds.model, block) };
  }
  const inside = contents(folds, block);
  return { kind: "open", key: `o${block.id}`, block, leaves: block.all, inside, w: inside.w, h: inside.h };
}

/** Inputs come first; all else goes in canonical order. */
function rankOf(model, item) {
  const first = item.leaves[0] ?? 0;
  return model.leaves[first]?.kind === "input" ? first - 1e9 : first;
}

/** Put what is far from the kept leaves together: runs of neighbours in canonical order, so that no circle arises. */
function elided(model, block, items, kept) {
  const found = [];
  let run = [];
  const close = () => {
    for (const part of connected(model, run)) found.push(...(part.length > 2 ? [restItem(block, part)] : part));
    run = [];
  };
  for (const item of items) {
    if (item.leaves.some((id) => kept.has(id))) {
      close();
      found.push(item);
    } else run.push(item);
  }
  close();
  return found;
}

function restItem(block, items) {
  const leaves = items.flatMap((item) => item.leaves);
  const blocks = items.filter((item) => item.block).map((item) => item.block.label);
  const label = blocks.length === items.length ? shared(blocks) : `${leaves.length} nodes`;
  return { kind: "rest", key: `r${block.id}.${leaves[0]}`, block, leaves, label, ...restSize(label) };
}

/** Name a run of blocks as one: layers 1–4. */
function shared(labels) {
  const [first, last] = [labels[0], labels[labels.length - 1]];
  const [from, to] = [/^nodes (\d+)–/.exec(first), /^nodes \d+–(\d+)/.exec(last)];
  if (from && to) return `nodes ${from[1]}–${to[1]}`;
  const [a, b] = [/^(.*?)(\d+)$/.exec(first), /^(.*?)(\d+)$/.exec(last)];
  return a && b && a[1] === b[1] ? `${a[1].trim()}s ${a[2]}–${b[2]}` : `${first} – ${last}`;
}

/** Split items into parts that no link connects. */
function connected(model, items) {
  const owner = new Map(items.flatMap((item) => item.leaves.map((id) => [id, item])));
  const part = new Map(items.map((item) => [item, [item]]));
  for (const [id, item] of owner) {
    for (const link of model.into[id]) {
      const [mine, other] = [part.get(item), part.get(owner.get(link.from))];
      if (!other || mine === other) continue;
      mine.push(...other);
      other.forEach((each) => part.set(each, mine));
    }
  }
  return [...new Set(part.values())].map((each) => each.sort((a, b) => rankOf(model, a) - rankOf(model, b)));
}

/** Make the graph of a block: its items, ports for nodes outside that it reads or that read it, and a net for each
    node that is read: several outputs of one are one line, which the panel takes apart. */
function graphOf(model, block, items) {
  const vertices = items.map((item) => ({ item, w: item.w, h: item.h, rank: rankOf(model, item) }));
  const owner = new Map(vertices.flatMap((vertex) => vertex.item.leaves.map((id) => [id, vertex])));
  const ports = { top: new Map(), bottom: new Map() };
  const nets = new Map();
  const port = (pin, value, rank) => {
    if (!ports[pin].has(value)) {
      ports[pin].set(value, { port: value, pin, w: 8, h: 0, rank });
      vertices.push(ports[pin].get(value));
    }
    return ports[pin].get(value);
  };
  const connect = (link) => {
    const value = link.from;
    const source = owner.get(link.from) ?? port("top", value, link.from);
    const target = owner.get(link.to) ?? port("bottom", value, link.from);
    if (source === target) return;
    const whole = source.item && source.item.kind !== "open";
    const net = entry(nets, whole ? source.item.key : value, () => ({
      source,
      ...exit(source, value),
      ends: new Map(),
    }));
    const way = entrance(target, value);
    entry(net.ends, target.item ? `${target.item.key} ${way.port ? value : ""}` : value, () => ({
      vertex: target,
      links: [],
      ...way,
    })).links.push(link);
  };
  for (const id of block.all) {
    model.into[id].forEach(connect);
    model.out[id].filter((link) => !owner.has(link.to)).forEach(connect);
  }
  const made = [...nets.values()];
  for (const net of made) net.targets = [...net.ends.values()];
  return { vertices, nets: made };
}

function entry(map, key, make) {
  if (!map.has(key)) map.set(key, make());
  return map.get(key);
}

/** Where a value leaves its source: at a port of an open block, anywhere along the rim of other boxes. */
function exit(source, value) {
  const x = source.item?.inside?.bottom.get(value);
  return x === undefined ? { offset: 0, port: !source.item } : { offset: x - source.w / 2, port: true };
}

function entrance(target, value) {
  const x = target.item?.inside?.top.get(value);
  return x === undefined ? { offset: 0, port: !target.item } : { offset: x - target.w / 2, port: true };
}

/** Move what was placed into a frame, and say where the ports are. */
function framed(model, block, vertices, nets, height) {
  const isRoot = block === model.root;
  const boxes = vertices.filter((vertex) => vertex.item);
  const xs = [
    ...vertices.flatMap(({ x, w }) => [x - w / 2, x + w / 2]),
    ...nets.flatMap(({ chain }) => chain.map(({ x }) => x)),
  ];
  const left = (xs.length ? xs.reduce((a, b) => Math.min(a, b)) : 0) - PADDING.side;
  const right = (xs.length ? xs.reduce((a, b) => Math.max(a, b)) : 0) + PADDING.side;
  const w = Math.max(right - left, isRoot ? 0 : headWidth(block) + 24);
  const dx = (w - left - right) / 2;
  const head = isRoot ? PADDING.side : PADDING.head - (vertices.some(({ pin }) => pin === "top") ? 20 : 0);
  const foot = isRoot ? PADDING.side : vertices.some(({ pin }) => pin === "bottom") ? 0 : PADDING.foot;
  const h = head + height + foot;
  const rim =
    (pin, y) =>
    ([px, py]) => [px + dx, pin ? y : py + head];
  const lines = nets.flatMap((net) => net.targets.map((target) => lineOf(model, net, target, rim, h)));
  const ports = (pin) => new Map(vertices.filter((each) => each.pin === pin).map((each) => [each.port, each.x + dx]));
  return {
    w,
    h,
    lines,
    top: ports("top"),
    bottom: ports("bottom"),
    boxes: boxes.map(({ item, x, y }) => ({ ...item, x: x - item.w / 2 + dx, y: y + head })),
  };
}

function lineOf(model, net, target, rim, bottom) {
  const last = target.points.length - 1;
  const points = target.points.map((point, at) => {
    const pin = at === 0 ? net.source.pin : at === last ? target.vertex.pin : "";
    return rim(pin, pin === "top" ? 0 : bottom)(point);
  });
  const states = target.links.map(({ from, to }) => [model.leaves[from].state, model.leaves[to].state]);
  const folded = [net.source, target.vertex].some(({ item }) => item && item.kind !== "leaf" && item.kind !== "open");
  const state = (!folded && ["removed", "inserted"].find((each) => states.every((pair) => pair.includes(each)))) || "";
  const arrow = !target.vertex.pin && target.vertex.item.kind !== "open";
  if (target.back)
    return { points: sideways(net.source, target.vertex, rim("", 0)), links: target.links, state, arrow, back: true };
  return { points, links: target.links, state, arrow, back: false };
}

/** What goes up leaves and enters at the right. */
function sideways(source, target, place) {
  const ends = [source, target].map(({ x, y, w, h, item }) => place([x + (item ? w / 2 : 0), y + Math.min(h / 2, 24)]));
  const far = Math.max(ends[0][0], ends[1][0]) + 40 + Math.abs(ends[0][1] - ends[1][1]) * 0.12;
  return [ends[0], [far, ends[0][1]], [far, ends[1][1]], ends[1]];
}
