"use strict";

/* What the page draws, read from the JSON in it: leaves (nodes, inputs and outputs of a model), the links between
   them, and the blocks they lie in. A leaf is known by its place: nodes first, then inputs, then outputs. */

const DATA = JSON.parse(document.getElementById("data").textContent);

class Model {
  constructor(data, side) {
    Object.assign(this, { data, side, name: data.name, weights: data.weights.map(readWeight) });
    this.size = data.nodes.length;
    this.leaves = [
      ...data.nodes.map((node, id) => readNode(node, id)),
      ...data.inputs.map(([name, type, value]) => ({
        kind: "input",
        op: name || "input",
        name,
        type,
        value,
        block: data.ports[0],
      })),
      ...data.outputs.map(([name, type]) => ({
        kind: "output",
        op: name || "output",
        name,
        type,
        block: data.ports[1],
      })),
    ];
    this.leaves.forEach((leaf, id) =>
      Object.assign(leaf, { id, side, state: leaf.state || "", notes: [], partner: -1 }),
    );
    this.link();
    this.nest();
  }

  /** The leaf that a computed operand comes from. */
  from([node, index]) {
    return node < 0 ? this.size + index : node;
  }

  link() {
    this.into = this.leaves.map(() => []);
    this.out = this.leaves.map(() => []);
    const add = (operand, to, slot) => {
      if (!Array.isArray(operand)) return;
      const link = { from: this.from(operand), output: operand[0] < 0 ? 0 : operand[1], to, slot };
      this.into[to].push(link);
      this.out[link.from].push(link);
    };
    this.data.nodes.forEach((_, id) => this.leaves[id].operands.forEach((operand, slot) => add(operand, id, slot)));
    this.data.outputs.forEach(([, , operand], index) => add(operand, this.size + this.data.inputs.length + index, 0));
  }

  nest() {
    const block = (label, parent, stack) => ({ label, parent, stack, blocks: [], leaves: [], all: [] });
    this.root = Object.assign(block("", null, false), { id: -1, key: "", depth: 0 });
    this.blocks = [];
    this.data.blocks.forEach(([label, parent, stack], id) => {
      const above = parent < 0 ? this.root : this.blocks[parent];
      const made = Object.assign(block(label, above, !!stack), {
        id,
        key: `${above.key}/${label}`,
        depth: above.depth + 1,
      });
      above.blocks.push(made);
      this.blocks.push(made);
    });
    this.byKey = new Map(this.blocks.map((each) => [each.key, each]));
    for (const leaf of this.leaves) {
      const owner = leaf.block < 0 ? this.root : this.blocks[leaf.block];
      owner.leaves.push(leaf.id);
      for (let each = owner; each; each = each.parent) each.all.push(leaf.id);
    }
  }

  /** The blocks around a leaf, the innermost first, without the root. */
  *around(leaf) {
    let block = this.blocks[this.leaves[leaf].block];
    for (; block && block !== this.root; block = block.parent) yield block;
  }

  /** How many leaves of a block are removed, inserted or changed. */
  counts(block) {
    block.counts ??= count(block.all.map((id) => this.leaves[id]));
    return block.counts;
  }

  /** Leaves within a few steps of some, those included. */
  near(ids, steps) {
    const found = new Set(ids);
    let edge = [...found];
    for (; steps > 0; steps--) {
      const next = edge.flatMap((id) => [
        ...this.into[id].map((link) => link.from),
        ...this.out[id].slice(0, 12).map((link) => link.to),
      ]);
      edge = next.filter((id) => !found.has(id));
      edge.forEach((id) => found.add(id));
    }
    return found;
  }
}

function readNode([op, name, attributes, operands, outputs, by, inner, block, state]) {
  return { kind: "node", op, name, attributes, operands, outputs, by, inner, block, state };
}

function readWeight([type, name, content, size, spread], id) {
  return { id, type, name, content, size, spread };
}

function count(leaves) {
  const found = { removed: 0, inserted: 0, changed: 0 };
  for (const leaf of leaves) if (leaf.state) found[leaf.state] += 1;
  return found;
}

/** Read all models, tell each leaf its partner, and each changed one its changes. */
function readModels(data) {
  const models = data.models.map((each, side) => new Model(each, side));
  if (models.length < 2) return models;
  const pair = (was, now) => {
    if (was < 0 || now < 0) return;
    models[0].leaves[was].partner = now;
    models[1].leaves[now].partner = was;
  };
  data.partners.forEach((now, was) => pair(was, now));
  data.inputs.forEach((now, was) => pair(models[0].size + was, now < 0 ? -1 : models[1].size + now));
  const ends = models.map((model) => model.leaves.filter((leaf) => leaf.kind === "output"));
  for (const leaf of ends[0]) pair(leaf.id, ends[1].find((other) => other.name === leaf.name)?.id ?? -1);
  data.groups.forEach((group, index) => group.places.forEach((place, at) => note(models, index, place, at)));
  return models;
}

function note(models, group, place, at) {
  [place.before, place.after].forEach((ids, side) => {
    for (const id of ids) models[side].leaves[id].notes.push({ group, at });
  });
}

/** The details of what changed in the attributes of a leaf itself. */
function newsOf(leaf) {
  const places = leaf.notes.map(({ group, at }) => DATA.groups[group].places[at]);
  return places.filter(({ scope, detail }) => !scope && detail.attribute).map(({ detail }) => detail);
}

/** What a leaf is called in a list: its operator and its name. */
function titled(leaf) {
  return leaf.kind === "node" ? leaf.op.split(".").pop() : leaf.op;
}
