/* What stands beside the drawings: what the models cost, what changed, and the search. */

const COSTS = ["nodes", "parameters", "bytes", "MACs"];

function quantity(value, kind) {
  if (kind === "nodes" || value < 10_000) return value.toLocaleString("en");
  const [step, units] = kind === "bytes" ? [1000, ["kB", "MB", "GB", "TB"]] : [1000, ["k", "M", "G", "T"]];
  let at = -1;
  let scaled = value;
  while (scaled >= step && at < units.length - 1) [scaled, at] = [scaled / step, at + 1];
  return `${scaled.toPrecision(scaled < 1000 ? 3 : 4)} ${units[at]}`;
}

/** The table of costs, before and after and how they compare. */
function costTable(models) {
  const table = make("table", { class: "costs" });
  const heads = models.length > 1 ? ["", "before", "after", "ratio"] : ["", "cost"];
  table.append(make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text, scope: "col" })))));
  const body = make("tbody");
  COSTS.forEach((kind, index) => {
    const values = models.map((model) => model.data.cost[index]);
    const cells = values.map((value) => make("td", { text: quantity(value, kind), title: value.toLocaleString("en") }));
    if (values.length > 1) cells.push(ratio(...values));
    body.append(make("tr", {}, make("th", { text: kind, scope: "row" }), ...cells));
  });
  const unknown = models.some((model) => model.data.cost[4]);
  const note = "nodes with constants; MACs at 1 × 128 tokens" + (unknown ? ", products of unknown size left out" : "");
  table.append(body, make("caption", { text: note }));
  return table;
}

function ratio(was, now) {
  if (was === now) return make("td", { class: "quiet", text: "=" });
  if (was && Math.abs(now / was - 1) < 0.005) return make("td", { class: "quiet", text: "≈" });
  const share = was ? `×${(now / was).toPrecision(now / was < 1 ? 2 : 3)}` : "new";
  return make("td", { class: now < was ? "less" : "more", text: share });
}

/** The list of what changed, with a filter by kind. */
function changeList(groups) {
  const root = make("div", { class: "changes" });
  const kinds = [...new Set(groups.map((group) => group.kind))];
  const off = new Set();
  const list = make("ol");
  const items = groups.map((group, index) => changeItem(group, index));
  list.append(...items);
  const show = () => items.forEach((item, index) => (item.hidden = off.has(groups[index].kind)));
  const filters = kinds.map((kind) => {
    const number = groups.filter((group) => group.kind === kind).reduce((sum, group) => sum + group.count, 0);
    const button = make("button", { class: `chip ${kind}`, "aria-pressed": "true", title: `show or hide ${kind}` });
    button.append(kind, " ", make("span", { text: number.toLocaleString("en") }));
    button.addEventListener("click", () => {
      if (!off.delete(kind)) off.add(kind);
      button.setAttribute("aria-pressed", String(!off.has(kind)));
      show();
    });
    return button;
  });
  root.append(make("div", { class: "filters", role: "group", "aria-label": "kinds of changes" }, ...filters), list);
  if (!groups.length) root.append(make("p", { class: "quiet", text: "Nothing changed." }));
  return root;
}

function changeItem(group, index) {
  const text = make("span", { class: "what", text: group.what });
  const top = make(
    "span",
    { class: "top" },
    chip(group.kind),
    group.count > 1 ? make("span", { class: "times", text: `×${group.count.toLocaleString("en")}` }) : null,
  );
  const button = make(
    "button",
    { class: "go", "aria-expanded": "false", on: { click: () => page.visit(index, 0) } },
    top,
    text,
  );
  const under = [group.by && `by ${group.by}`, group.where].filter(Boolean).join(" · ");
  if (under) button.append(make("span", { class: "where", text: under, title: under }));
  const item = make("li", {}, button);
  if (group.places.length > 1) {
    const step = (by, sign, label) =>
      make("button", { class: "small", text: sign, "aria-label": label, on: { click: () => page.step(index, by) } });
    item.append(
      make(
        "span",
        { class: "steps" },
        step(-1, "‹", "previous place"),
        make("span", { class: "at" }),
        step(1, "›", "next place"),
      ),
    );
  }
  return item;
}

/** Show in the list which change is visited. */
function markChange(root, group, at) {
  root.querySelectorAll("li").forEach((item, index) => {
    const here = index === group;
    item.classList.toggle("current", here);
    item.querySelector(".go").setAttribute("aria-expanded", String(here));
    const counter = item.querySelector(".at");
    if (!here) return;
    const { places, count } = DATA.groups[group];
    if (counter)
      counter.textContent = `${at + 1} of ${places.length}${count > places.length ? ` (first of ${count})` : ""}`;
    item.scrollIntoView({ block: "nearest" });
  });
}

/** The leaves in which all words are found, nodes of both models that are partners once. */
function searched(models, words) {
  const hits = models.map(
    (model) =>
      new Set(
        model.leaves.filter((leaf) => words.every((word) => textOf(model, leaf).includes(word))).map((leaf) => leaf.id),
      ),
  );
  return models.flatMap((model, side) => {
    const news = [...hits[side]].filter((id) => !(side && hits[0].has(model.leaves[id].partner)));
    return news.map((id) => ({ side, id }));
  });
}

function textOf(model, leaf) {
  if (leaf.text === undefined) {
    const weights = (leaf.operands ?? [])
      .filter(Number.isInteger)
      .map((id) => `${model.weights[id].name} ${model.weights[id].type}`);
    leaf.text = [leaf.op, leaf.name, leaf.type, leaf.by, ...(leaf.outputs ?? []), ...weights].join("\n").toLowerCase();
  }
  return leaf.text;
}

/** Let the search box find leaves: typing lists them, arrows move in the list, Enter goes from one to the next. */
function listenSearch(models, input, list) {
  const most = 60;
  let [hits, at] = [[], -1];
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    [hits, at] = [words.length ? searched(models, words) : [], -1];
    list.replaceChildren(...hits.slice(0, most).map((hit, index) => found(models, hit, index, () => go(index))));
    const more = hits.length > most ? ` The first ${most} are listed.` : "";
    if (words.length)
      list.append(
        make("li", {
          class: "quiet",
          role: "presentation",
          text: hits.length ? `${hits.length.toLocaleString("en")} found.${more}` : "Nothing found.",
        }),
      );
    open(words.length > 0);
  };
  const open = (opened) => {
    list.hidden = !opened;
    input.setAttribute("aria-expanded", String(opened));
  };
  const mark = (index) => {
    at = index;
    list
      .querySelectorAll("[role=option]")
      .forEach((item, place) => item.setAttribute("aria-selected", String(place === at)));
    input.setAttribute("aria-activedescendant", at < 0 || at >= most ? "" : `hit-${at}`);
    list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  };
  const go = (index) => {
    mark(index);
    page.select(hits[index].side, hits[index].id);
  };
  input.addEventListener("input", show);
  input.addEventListener("focus", () => input.value && open(true));
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1, Enter: event.shiftKey ? -1 : 1 }[event.key];
    if (event.key === "Escape") return open(false);
    if (!step || !hits.length) return;
    event.preventDefault();
    const next = (Math.max(at, step > 0 ? -1 : 0) + step + hits.length) % hits.length;
    // Arrows choose, and the first Enter goes to what they chose.
    if (event.key !== "Enter") return (open(true), mark(next));
    const fresh = at >= 0 && !page.isSelected(hits[at]);
    go(fresh ? at : next);
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".search")) open(false);
  });
}

function found(models, { side, id }, index, act) {
  const leaf = models[side].leaves[id];
  const item = make("li", {
    role: "option",
    id: `hit-${index}`,
    "aria-selected": "false",
    class: leaf.state,
    on: { click: act },
  });
  item.append(
    make("b", { text: titled(leaf) }),
    " ",
    make("span", { class: "quiet", text: leaf.kind === "node" ? leaf.name : leaf.kind }),
  );
  if (models.length > 1 && leaf.partner < 0)
    item.append(make("span", { class: "side", text: models[side].side ? "after" : "before" }));
  return item;
}
