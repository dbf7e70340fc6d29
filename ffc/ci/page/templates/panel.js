/* The panel below the drawings: one node with its partner, or one change, and histograms of weights on demand. */

/** Make an element; text is set as text alone. */
function make(tag, properties = {}, ...children) {
  const { text, on, ...attributes } = properties;
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== false) made.setAttribute(name, value);
  for (const [name, act] of Object.entries(on ?? {})) made.addEventListener(name, act);
  if (text !== undefined) made.textContent = text;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function chip(kind) {
  return make("span", { class: `chip ${kind}`, text: kind });
}

/** Show a leaf and, beside it, its partner or what became of it. */
function leafPanel(models, side, id) {
  const leaf = models[side].leaves[id];
  const columns = models.map((model, at) => {
    const own = at === side ? id : leaf.partner;
    return own >= 0 ? facts(models, at, own) : missing(models, leaf, at);
  });
  const notes = leaf.notes.map(({ group, at }) => {
    const { kind, what } = DATA.groups[group];
    return make(
      "button",
      { class: "note", on: { click: () => page.visit(group, at) } },
      chip(kind),
      make("span", { text: what }),
    );
  });
  return [
    notes.length ? make("div", { class: "notes" }, ...notes) : null,
    make("div", { class: "columns" }, ...columns),
  ];
}

/** Say of a node without a partner what there is instead. */
function missing(models, leaf, side) {
  const column = make("section", { class: "facts empty" });
  const ids = insteadOf(leaf, 1 - side);
  const words = side
    ? ["Not in the model after", "in its place"]
    : ["Not in the model before", "it takes the place of"];
  column.append(make("p", { class: "quiet", text: ids.length ? `${words[0]}; ${words[1]}:` : `${words[0]}.` }));
  if (ids.length) column.append(leafList(models, side, ids));
  return column;
}

function leafList(models, side, ids) {
  const list = make("ul", { class: "leaves" });
  for (const id of ids.slice(0, 200)) list.append(make("li", {}, leafButton(models, side, id)));
  if (ids.length > 200) list.append(make("li", { class: "quiet", text: `and ${ids.length - 200} more` }));
  return list;
}

function leafButton(models, side, id) {
  const leaf = models[side].leaves[id];
  const button = make("button", {
    class: `leaf ${leaf.state}`,
    title: leaf.name,
    on: { click: () => page.select(side, id) },
  });
  // A long name shows its end, which is what tells it from others.
  button.append(
    make("b", { text: titled(leaf) }),
    make("span", { class: "tail quiet" }, make("bdi", { text: leaf.kind === "node" ? leaf.name : leaf.kind })),
  );
  return button;
}

/** Everything about a leaf. */
function facts(models, side, id) {
  const model = models[side];
  const leaf = model.leaves[id];
  const column = make("section", { class: "facts" });
  const head = make(
    "h3",
    { class: leaf.state },
    make("span", { text: (leaf.state ? `${SIGNS[leaf.state]} ` : "") + titled(leaf) }),
  );
  const domain = leaf.kind === "node" ? leaf.op.split(".").slice(0, -1).join(".") : leaf.kind;
  if (domain) head.append(make("small", { text: domain }));
  column.append(head);
  if (leaf.name && leaf.kind === "node") column.append(make("p", { class: "name", text: leaf.name }));
  const list = make("dl");
  for (const [name, ...values] of rowsOf(models, side, leaf)) {
    list.append(make("dt", { text: name }), make("dd", {}, ...values));
  }
  column.append(list);
  return column;
}

function* rowsOf(models, side, leaf) {
  const model = models[side];
  const block = [...model.around(leaf.id)]
    .reverse()
    .map((each) => each.label)
    .join(" / ");
  if (leaf.type) yield ["type", leaf.type];
  if (leaf.value) yield ["default", leaf.value];
  if (leaf.by) yield ["made by", leaf.by];
  if (block) yield ["in", block];
  for (const [name, value, changed] of attributesOf(side, leaf))
    yield [name, make("span", { class: changed ? "changed" : "", text: value })];
  for (const [name, text] of Object.entries(leaf.inner ?? {})) yield [name, text];
  const body = model.data.functions[leaf.op];
  if (body) yield ["body", body];
  for (const [slot, operand] of (leaf.operands ?? []).entries())
    yield [`input ${slot}`, operandView(models, side, operand)];
  if (leaf.kind === "output") {
    const weight = model.data.outputs[leaf.id - model.size - model.data.inputs.length][2];
    if (Number.isInteger(weight)) yield ["value", operandView(models, side, weight)];
    for (const link of model.into[leaf.id]) yield ["from", leafButton(models, side, link.from)];
  }
  for (const [index, name] of (leaf.outputs ?? [""]).entries()) yield* readersOf(models, side, leaf, index, name);
}

/** The attributes of a node, those that are at their default on this side alone included, and whether they changed. */
function attributesOf(side, leaf) {
  const changed = new Map(newsOf(leaf).map((detail) => [detail.attribute, side ? detail.after : detail.before]));
  const names = [...new Set([...Object.keys(leaf.attributes ?? {}), ...changed.keys()])].sort();
  return names.map((name) => [name, leaf.attributes[name] ?? changed.get(name), changed.has(name)]);
}

function* readersOf(models, side, leaf, index, name) {
  const readers = models[side].out[leaf.id].filter((link) => link.output === index);
  if (leaf.kind === "output") return;
  const ids = [...new Set(readers.map((link) => link.to))];
  const title = name ? make("span", { class: "name", text: name }) : null;
  yield [
    leaf.kind === "input" ? "read by" : `output ${index}`,
    title,
    ids.length ? leafList(models, side, ids) : make("span", { class: "quiet", text: "read by none" }),
  ];
}

function operandView(models, side, operand) {
  if (operand === null) return make("span", { class: "quiet", text: "omitted" });
  if (Array.isArray(operand)) return leafButton(models, side, models[side].from(operand));
  return weightView(models[side].weights[operand]);
}

function weightView(weight) {
  const view = make("div", { class: "weight" }, make("code", { text: weight.type }));
  if (weight.size <= 8 && weight.content) view.append(" ", make("code", { class: "content", text: weight.content }));
  if (weight.name) view.append(" ", make("span", { class: "name quiet", text: weight.name }));
  if (weight.spread.of) view.append(" ", histogramButton(weight, view));
  return view;
}

function histogramButton(weight, view) {
  let drawn = null;
  const button = make("button", { class: "small", "aria-expanded": "false", text: "histogram" });
  button.addEventListener("click", () => {
    if (drawn) drawn = void drawn.remove();
    else view.append((drawn = histogram(weight)));
    button.setAttribute("aria-expanded", String(!!drawn));
  });
  return button;
}

/** Draw how the elements of a weight are spread. */
function histogram({ spread, size, type }) {
  const figure = make("figure", { class: "histogram" });
  const bins = spread.low === spread.high ? [] : (spread.bins ?? []);
  const [width, height, most] = [256, 64, Math.max(1, ...bins)];
  if (bins.length) {
    const picture = shape("svg", {
      viewBox: `0 0 ${width} ${height + 1}`,
      role: "img",
      "aria-label": `histogram of ${type}`,
    });
    const step = width / bins.length;
    bins.forEach((count, index) => {
      // A bin that holds something is seen, however little that is.
      const h = count ? Math.max(1, (count / most) * height) : 0;
      const bar = shape("rect", { x: index * step + 0.5, y: height - h, width: step - 1, height: h });
      bar.append(shape("title", {}, `${count.toLocaleString("en")} of ${spread.of.toLocaleString("en")}`));
      picture.append(bar);
    });
    picture.append(shape("path", { d: `M0 ${height + 0.5}H${width}`, class: "axis" }));
    figure.append(
      picture,
      make("div", { class: "scale" }, make("span", { text: spread.low }), make("span", { text: spread.high })),
    );
  }
  const same =
    spread.low === spread.high
      ? [`all equal ${spread.low}`]
      : [`mean ${spread.mean}`, `zeros ${+(spread.zeros * 100).toPrecision(3)} %`];
  const said = spread.mean === undefined ? [] : same;
  if (spread.strange) said.push(`${spread.strange.toLocaleString("en")} not finite`);
  const whole =
    spread.of === size
      ? `all ${size.toLocaleString("en")} elements`
      : `a sample of ${spread.of.toLocaleString("en")} of ${size.toLocaleString("en")} elements`;
  figure.append(make("figcaption", { text: [...said, whole].join(" · ") }));
  return figure;
}

/** Show one change of a group: what changed, from what to what, and the nodes concerned. */
function changePanel(models, group, at) {
  const { kind, what, by, places } = DATA.groups[group];
  const place = places[at];
  const parts = [make("div", { class: "change" }, chip(kind), make("b", { text: what }))];
  const sides = models.map((_, side) => place[side ? "after" : "before"]);
  const single = sides.every((ids) => ids.length === 1);
  const told = [
    place.scope && `in ${place.scope}, which is not drawn`,
    !single && place.where,
    by && `by ${by}`,
  ].filter(Boolean);
  if (told.length) parts.push(make("p", { class: "name quiet", text: told.join(" · ") }));
  // The attributes of two nodes side by side say it already.
  if (!single || !place.detail.attribute) parts.push(detailView(place.detail));
  if (sides.some((ids) => ids.length)) {
    parts.push(make("div", { class: "columns" }, ...sides.map((ids, side) => placeColumn(models, side, ids))));
  }
  return parts;
}

function placeColumn(models, side, ids) {
  if (ids.length === 1) return facts(models, side, ids[0]);
  const column = make("section", { class: "facts" });
  if (!ids.length)
    column.append(
      make("p", { class: "quiet", text: side ? "Nothing in the model after." : "Nothing in the model before." }),
    );
  else column.append(leafList(models, side, ids));
  return column;
}

function detailView(detail) {
  const rest = Object.entries(detail).filter(
    ([name]) => !["before", "after", "removed", "inserted", "attribute"].includes(name),
  );
  const list = make("dl", { class: "detail" });
  if ("before" in detail || "after" in detail) {
    const values = [
      make("span", { class: "was", text: detail.before ?? "none" }),
      " → ",
      make("span", { class: "now", text: detail.after ?? "none" }),
    ];
    list.append(make("dt", { text: detail.attribute ?? "value" }), make("dd", {}, ...values));
  }
  for (const [name, value] of rest) list.append(make("dt", { text: name }), make("dd", { text: value }));
  return list.children.length ? list : null;
}
