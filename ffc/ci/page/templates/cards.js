/* What boxes look like: their sizes, and their pictures in SVG. Text is cut to the width it has, and set as text. */

const SVG = "http://www.w3.org/2000/svg";
const FACE = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
const FONTS = { title: `600 13px ${FACE}`, small: `11px ${FACE}` };
const WIDEST = 224;
const SIGNS = { removed: "−", inserted: "+", changed: "~" };
const pen = document.createElement("canvas").getContext("2d");
const widths = new Map();

function wide(text, font) {
  const key = font + text;
  if (!widths.has(key)) {
    pen.font = FONTS[font];
    widths.set(key, pen.measureText(text).width);
  }
  return widths.get(key);
}

/** Cut a text to a width. */
function fitted(text, font, width) {
  if (wide(text, font) <= width) return text;
  let [low, high] = [0, Math.min(text.length, 80)];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (wide(`${text.slice(0, middle)}…`, font) <= width) low = middle;
    else high = middle - 1;
  }
  return `${text.slice(0, low)}…`;
}

function shape(tag, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** The second line of a leaf: what changed, else its large weights, else its attributes. */
function subtitle(model, leaf) {
  if (leaf.kind !== "node") return leaf.type;
  const [news] = newsOf(leaf);
  if (news) return `${news.attribute} = ${model.side ? news.after : news.before}`;
  const large = leaf.operands.filter((operand) => Number.isInteger(operand) && model.weights[operand].size > 8);
  if (large.length) return model.weights[large[0]].type + (large.length > 1 ? ` +${large.length - 1}` : "");
  return Object.entries(leaf.attributes)
    .map(([name, value]) => `${name} = ${value}`)
    .join(", ");
}

function leafSize(model, id) {
  const leaf = model.leaves[id];
  leaf.title ??= (leaf.state ? `${SIGNS[leaf.state]} ` : "") + titled(leaf);
  leaf.small ??= subtitle(model, leaf);
  const w = Math.max(wide(leaf.title, "title"), wide(leaf.small, "small")) + 22;
  return { w: Math.min(WIDEST, Math.max(56, Math.ceil(w))), h: leaf.small ? 42 : 28 };
}

function blockSize(model, block) {
  const small = wide(blockNote(model, block), "small");
  const counts = model.counts(block);
  const badges = Object.keys(SIGNS)
    .filter((each) => counts[each])
    .reduce((sum, each) => sum + 8 + wide(SIGNS[each] + counts[each], "small"), 0);
  const w = Math.max(wide(block.label, "title") + 48, small + badges + 34);
  return { w: Math.min(300, Math.max(130, Math.ceil(w))), h: 50 };
}

function blockNote(model, block) {
  const nodes = `${block.all.length.toLocaleString("en")} ${model.leaves[block.all[0]]?.kind === "node" ? "node" : "port"}${block.all.length === 1 ? "" : "s"}`;
  return block.stack ? `${block.blocks.length} alike · ${nodes}` : nodes;
}

function restSize(label) {
  return { w: Math.min(280, Math.ceil(wide(`⋯ ${label}`, "small")) + 24), h: 24 };
}

function headWidth(block) {
  return Math.min(260, wide(block.label, "title") + 46);
}

/** Draw a box. */
function card(model, box) {
  const group = shape("g", { class: `box ${box.kind}`, transform: `translate(${box.x} ${box.y})` });
  ({ leaf: leafCard, block: blockCard, open: openCard, rest: restCard })[box.kind](group, model, box);
  return group;
}

function named(group, label, role = "button") {
  group.setAttribute("role", role);
  group.setAttribute("aria-label", label);
  group.append(shape("title", {}, label));
}

function leafCard(group, model, box) {
  const { leaf, w, h } = box;
  group.classList.add(leaf.kind, leaf.state || "same");
  named(group, [leaf.op, leaf.kind === "node" ? leaf.name : leaf.kind, leaf.state].filter(Boolean).join(", "));
  group.append(
    shape("rect", { width: w, height: h, rx: leaf.kind === "node" ? 6 : h / 2 }),
    shape("text", { x: w / 2, y: leaf.small ? 17 : 18.5, class: "title" }, fitted(leaf.title, "title", w - 14)),
  );
  if (leaf.small) group.append(shape("text", { x: w / 2, y: 33, class: "small" }, fitted(leaf.small, "small", w - 14)));
}

function blockCard(group, model, box) {
  const { block, w, h } = box;
  const counts = model.counts(block);
  const told = Object.keys(SIGNS).filter((each) => counts[each]);
  const state = told.length ? ["touched"] : [];
  group.classList.add(...state);
  named(
    group,
    [block.label, blockNote(model, block), ...told.map((each) => `${counts[each]} ${each}`), "folded"].join(", "),
  );
  if (block.stack)
    for (const by of [8, 4]) group.append(shape("rect", { x: by, y: by, width: w, height: h, rx: 8, class: "under" }));
  group.append(
    shape("rect", { width: w, height: h, rx: 8 }),
    shape("path", { d: "M14 14.5l5 4.5-5 4.5", class: "twisty" }),
    shape("text", { x: 28, y: 22, class: "title" }, fitted(block.label, "title", w - 40)),
    shape("text", { x: 14, y: 39, class: "small" }, blockNote(model, block)),
  );
  let x = w - 12;
  for (const each of told.reverse()) {
    const text = SIGNS[each] + counts[each].toLocaleString("en");
    group.append(shape("text", { x, y: 39, class: `badge ${each}` }, text));
    x -= wide(text, "small") + 8;
  }
}

/** The ground of an open block; its head is drawn apart, above the lines. */
function openCard(group, model, box) {
  group.classList.add(`depth${Math.min(3, box.block.depth)}`);
  group.append(shape("rect", { width: box.w, height: box.h, rx: 12 }));
}

function headCard(model, box) {
  const group = shape("g", { class: "box head", transform: `translate(${box.x + 8} ${box.y + 7})` });
  const w = headWidth(box.block);
  named(group, `${box.block.label}, unfolded`);
  group.append(
    shape("rect", { width: w, height: 22, rx: 6 }),
    shape("path", { d: "M9 9l4 4.5 4-4.5", class: "twisty" }),
    shape("text", { x: 23, y: 15.5, class: "title" }, fitted(box.block.label, "title", w - 30)),
  );
  return group;
}

function restCard(group, model, box) {
  named(group, `${box.label} not shown; show them`);
  group.append(
    shape("rect", { width: box.w, height: box.h, rx: 12 }),
    shape("text", { x: box.w / 2, y: 16, class: "small" }, fitted(`⋯ ${box.label}`, "small", box.w - 20)),
  );
}

/** Draw a line through its points: straight within rows, curved between them. */
function lineShape(line) {
  const { points } = line;
  let d = `M${points[0]}`;
  if (line.back) d += `C${points.slice(1)}`;
  else
    for (let at = 1; at < points.length; at++) {
      const [[a, b], [x, y]] = [points[at - 1], points[at]];
      if (Math.abs(a - x) < 0.5) d += `V${y}`;
      else d += `C${a} ${(b + y) / 2} ${x} ${(b + y) / 2} ${x} ${y}`;
    }
  return shape("path", {
    class: `line ${line.state} ${line.back ? "back" : ""}`,
    d,
    "marker-end": line.arrow ? "url(#arrow)" : "none",
  });
}
