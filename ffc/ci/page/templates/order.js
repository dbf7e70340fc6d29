/* Layered drawing of one container: rows by the longest path, few crossings, lines as straight as they get.

   A vertex has a width, a height, a rank for ties, and may be pinned to the top or the bottom row, as the ports of a
   container are. A net is a value: one source, several targets; its lines share one way as long as they can. */

const GAP = { row: 28, box: 22, line: 13 };

/** Place vertices and route nets; sets x (of the centre) and y of vertices, and points of the targets of nets. */
function layered(vertices, nets) {
  const rows = intoRows(vertices, nets);
  const segments = route(nets, rows);
  const beside = neighbours(rows, segments);
  uncross(rows, beside);
  straighten(rows, beside);
  const ys = stack(rows, segments);
  for (const net of nets) for (const target of net.targets) target.points = points(net, target, ys);
  return ys[ys.length - 1]?.bottom ?? 0;
}

/** Sort so that sources come first; where there is a circle, the vertex goes ahead that gives most and waits least. */
function sorted(vertices, nets) {
  const left = new Set([...vertices].sort((a, b) => a.rank - b.rank));
  const waits = new Map(vertices.map((vertex) => [vertex, 0]));
  const gives = new Map(vertices.map((vertex) => [vertex, []]));
  for (const { source, targets } of nets) {
    for (const { vertex, links } of targets) {
      waits.set(vertex, waits.get(vertex) + links.length);
      gives.get(source).push({ vertex, number: links.length });
    }
  }
  const gain = (vertex) =>
    gives.get(vertex).reduce((sum, each) => sum + (left.has(each.vertex) ? each.number : 0), -waits.get(vertex));
  const order = [];
  while (left.size) {
    let next = null;
    for (const vertex of left) {
      if (waits.get(vertex) > 0) continue;
      next = vertex;
      break;
    }
    next ??= [...left].reduce((best, vertex) => (gain(vertex) > gain(best) ? vertex : best));
    left.delete(next);
    order.push(next);
    for (const { vertex, number } of gives.get(next)) waits.set(vertex, waits.get(vertex) - number);
  }
  return order;
}

/** Give every vertex a row; what would go up is marked as back and has no part in the rest. */
function intoRows(vertices, nets) {
  const order = sorted(vertices, nets);
  const place = new Map(order.map((vertex, index) => [vertex, index]));
  const above = new Map(vertices.map((vertex) => [vertex, []]));
  const below = new Map(vertices.map((vertex) => [vertex, []]));
  for (const net of nets) {
    for (const target of net.targets) {
      target.back = place.get(net.source) >= place.get(target.vertex);
      if (target.back) continue;
      above.get(target.vertex).push(net.source);
      below.get(net.source).push(target.vertex);
    }
  }
  const start = vertices.some((vertex) => vertex.pin === "top") ? 1 : 0;
  for (const vertex of order) {
    const least = vertex.pin === "top" ? 0 : start;
    vertex.row = above.get(vertex).reduce((row, source) => Math.max(row, source.row + 1), least);
  }
  // What reads nothing here stands right above its first reader.
  for (const vertex of [...order].reverse()) {
    if (vertex.pin || above.get(vertex).length || !below.get(vertex).length) continue;
    vertex.row = Math.max(start, Math.min(...below.get(vertex).map((reader) => reader.row)) - 1);
  }
  const last = vertices.reduce((row, vertex) => (vertex.pin === "bottom" ? row : Math.max(row, vertex.row)), 0);
  const rows = Array.from({ length: last + 1 }, () => []);
  for (const vertex of order) {
    if (vertex.pin === "bottom") vertex.row = last + 1;
    (rows[vertex.row] ??= []).push(vertex);
  }
  return rows;
}

/** Lead every net through the rows between its source and its targets; return the pieces from row to row. */
function route(nets, rows) {
  const segments = [];
  const add = (upper, lower, from, to) => {
    // Long lines are straight, and short ones; a long one does not pull at the box that it ends in.
    const weight = upper.bend && lower.bend ? 8 : upper.bend || lower.bend ? 0.01 : 3;
    segments.push({ upper, lower, from, to, weight });
  };
  for (const net of nets) {
    const ahead = net.targets.filter((target) => !target.back);
    const last = Math.max(net.source.row, ...ahead.map((target) => target.vertex.row - 1));
    net.chain = [net.source];
    for (let row = net.source.row + 1; row <= last; row++) {
      const bend = { bend: true, w: 1, h: 0, row, rank: net.source.rank };
      rows[row].push(bend);
      add(net.chain[net.chain.length - 1], bend, net.chain.length === 1 ? net.offset : 0, 0);
      net.chain.push(bend);
    }
    for (const target of ahead) {
      const above = net.chain[target.vertex.row - 1 - net.source.row];
      add(above, target.vertex, above === net.source ? net.offset : 0, target.offset ?? 0);
    }
  }
  return segments;
}

function neighbours(rows, segments) {
  const up = new Map(rows.flat().map((vertex) => [vertex, []]));
  const down = new Map(rows.flat().map((vertex) => [vertex, []]));
  for (const each of segments) {
    up.get(each.lower).push({ vertex: each.upper, own: each.to, its: each.from, weight: each.weight });
    down.get(each.upper).push({ vertex: each.lower, own: each.from, its: each.to, weight: each.weight });
  }
  return { up, down };
}

/** Order every row by where its neighbours are, down and up in turn, and keep the best order that was seen. */
function uncross(rows, { up, down }) {
  const number = () => rows.forEach((row) => row.forEach((vertex, index) => (vertex.at = index)));
  const sweep = (row, beside) => {
    for (const vertex of row) vertex.pull = pull(vertex, beside.get(vertex));
    row.sort((a, b) => a.pull - b.pull || a.at - b.at);
    row.forEach((vertex, index) => (vertex.at = index));
  };
  number();
  for (const row of rows) sweep(row, up);
  let best = { crossings: Infinity, rows: [] };
  for (let turn = 0; turn < 12 && best.crossings; turn++) {
    if (turn % 2) rows.forEach((row) => sweep(row, up));
    else [...rows].reverse().forEach((row) => sweep(row, down));
    const crossings = rows.reduce((sum, row) => sum + crossed(row, down), 0);
    if (crossings < best.crossings) best = { crossings, rows: rows.map((row) => [...row]) };
  }
  best.rows.forEach((row, index) => (rows[index] = row));
  number();
}

function pull(vertex, beside) {
  if (!beside.length) return vertex.at;
  return beside.reduce((sum, each) => sum + each.vertex.at + each.its / 1e4, 0) / beside.length;
}

/** Count the crossings between a row and the one below. */
function crossed(row, down) {
  const ends = row.flatMap((vertex) =>
    down
      .get(vertex)
      .map((each) => each.vertex.at + each.its / 1e4)
      .sort((a, b) => a - b),
  );
  let crossings = 0;
  for (let i = 1; i < ends.length; i++) for (let j = 0; j < i; j++) crossings += ends[j] > ends[i];
  return crossings;
}

/** Choose x: each row as near to its neighbours as its order allows, again and again. */
function straighten(rows, { up, down }) {
  for (const row of rows) {
    let x = 0;
    row.forEach((vertex, index) => (vertex.x = x += index ? apart(row[index - 1], vertex) : 0));
    row.forEach((vertex) => (vertex.x -= x / 2));
  }
  const both = new Map([...up].map(([vertex, above]) => [vertex, [...above, ...down.get(vertex)]]));
  for (let turn = 0; turn < 10; turn++) {
    rows.forEach((row) => settle(row, up));
    [...rows].reverse().forEach((row) => settle(row, turn < 6 ? down : both));
  }
  rows.forEach((row) => settle(row, up));
}

function apart(left, right) {
  return (left.w + right.w) / 2 + (left.bend || right.bend ? GAP.line : GAP.box);
}

/** Move a row to where its neighbours pull it, least squares under the order of the row (pool adjacent violators). */
function settle(row, beside) {
  const pools = [];
  let shift = 0;
  row.forEach((vertex, index) => {
    shift += index ? apart(row[index - 1], vertex) : 0;
    const pulls = beside.get(vertex);
    const weight = pulls.reduce((sum, each) => sum + each.weight, 0);
    const wish = weight
      ? pulls.reduce((sum, each) => sum + each.weight * (each.vertex.x + each.its - each.own), 0) / weight
      : vertex.x;
    vertex.shift = shift;
    pools.push({ members: [vertex], weight: weight || 0.05, wish: wish - shift });
    while (pools.length > 1 && pools[pools.length - 2].wish > pools[pools.length - 1].wish) {
      const [left, right] = pools.splice(-2);
      const sum = left.weight + right.weight;
      const mean = (left.wish * left.weight + right.wish * right.weight) / sum;
      pools.push({ members: left.members.concat(right.members), weight: sum, wish: mean });
    }
  });
  for (const pool of pools) for (const vertex of pool.members) vertex.x = pool.wish + vertex.shift;
}

/** Choose y: rows below each other, with more room where lines go far aside. */
function stack(rows, segments) {
  const aside = rows.map(() => 0);
  for (const { upper, lower, from, to } of segments) {
    aside[upper.row] = Math.max(aside[upper.row], Math.abs(upper.x + from - lower.x - to) - (upper.w + lower.w) / 4);
  }
  let y = 0;
  return rows.map((row, index) => {
    const top = y;
    const bottom = top + row.reduce((height, vertex) => Math.max(height, vertex.h), 0);
    for (const vertex of row) vertex.y = top;
    y = bottom + GAP.row + Math.min(36, aside[index] * 0.1);
    return { top, bottom };
  });
}

/** The points a line goes through: out of its source, straight through every row, into its target. */
function points(net, target, ys) {
  const { source, chain } = net;
  const { vertex } = target;
  const passed = target.back ? [] : chain.slice(1, vertex.row - source.row);
  const first = passed[0]?.x ?? vertex.x + (target.offset ?? 0);
  const start = net.port ? source.x + net.offset : within(first, source);
  const found = [[start, source.y + source.h]];
  if (!target.back) found.push([start, ys[source.row].bottom]);
  for (const bend of passed) found.push([bend.x, ys[bend.row].top], [bend.x, ys[bend.row].bottom]);
  found.push([target.port ? vertex.x + target.offset : within(found[found.length - 1][0], vertex), vertex.y]);
  return found;
}

/** The x nearest to `x` at which a line may meet a box. */
function within(x, { x: centre, w }) {
  const reach = Math.max(0, w / 2 - 14);
  return Math.min(centre + reach, Math.max(centre - reach, x));
}
