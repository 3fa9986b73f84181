// The circuit as a graph, drawn by Cytoscape: places come with the scene, colours with the answer.

import cytoscape from "cytoscape";
import { NONE, scaleOf, withUnit } from "view/scales";

const MANY = 40; // edges up to which values are written beside them
const LARGE = 300; // vertices beyond which they are drawn larger
const DENSE = 1000; // edges beyond which they are drawn the quickest way, without names
const NO_CURRENT = 1e-6; // of the largest current: a diode that carries less blocks

const STYLE = [
  {
    selector: "node",
    style: {
      width: "data(size)",
      height: "data(size)",
      "background-color": "data(fill)",
      "border-width": 1.5,
      "border-color": "#1c2430",
      label: "data(text)",
      "font-size": 13,
      "text-valign": "data(valign)",
      "text-halign": "data(halign)",
      "text-margin-x": "data(dx)",
      "text-margin-y": "data(dy)",
      "text-wrap": "wrap",
      "min-zoomed-font-size": 7,
      "text-background-color": "#fff",
      "text-background-opacity": 0.75,
      color: "#1c2430",
    },
  },
  {
    selector: "node[kind = 'group']",
    style: { shape: "round-rectangle", width: 54, height: 54, "border-width": 3, "border-style": "double" },
  },
  { selector: "node[kind = 'crossbar']", style: { shape: "rectangle", width: 110, height: 70 } },
  {
    selector: "node[kind = 'ground']",
    style: {
      shape: "polygon",
      width: 20,
      height: 14,
      "background-color": "#1c2430",
      "shape-polygon-points": "-1 -1 1 -1 0 1",
      "font-size": 11,
    },
  },
  { selector: "node[hidden > 0]", style: { "border-style": "dashed", "border-width": 3 } },
  {
    selector: "edge",
    style: {
      width: "data(wide)",
      "line-color": "data(fill)",
      "curve-style": "bezier",
      "source-label": "data(text)",
      "font-size": 12,
      "min-zoomed-font-size": 8,
      "text-background-color": "#fff",
      "text-background-opacity": 0.85,
      "text-wrap": "wrap",
      "mid-target-arrow-color": "data(fill)",
      "mid-source-arrow-color": "data(fill)",
      "arrow-scale": 1.1,
      "source-text-margin-x": "data(aside)",
      "source-text-margin-y": "data(above)",
      "source-text-offset": "data(along)",
      color: "#1c2430",
      "loop-direction": "0deg",
    },
  },
  { selector: "edge[way > 0]", style: { "mid-target-arrow-shape": "triangle" } },
  { selector: "edge[way < 0]", style: { "mid-source-arrow-shape": "triangle" } },
  {
    selector: "edge[kind = 'D']",
    style: { "mid-target-arrow-shape": "triangle-tee", "mid-source-arrow-shape": "none", "arrow-scale": 1.6 },
  },
  { selector: "edge[?blocks]", style: { "line-style": "dashed" } },
  { selector: "edge[kind = 'wire']", style: { "curve-style": "straight", "line-style": "solid" } },
  {
    selector: ":selected",
    style: {
      "border-color": "#e08a00",
      "border-width": 5,
      "underlay-color": "#e08a00",
      "underlay-opacity": 0.35,
      "underlay-padding": 5,
    },
  },
];

// Where the words of an edge stand: beside the line, before its middle, where the arrow is and lines cross.
function besides(a, b, name, nth) {
  const [x, y] = [b.x - a.x, b.y - a.y],
    length = Math.hypot(x, y) || 1,
    left = y > 0 ? 1 : -1;
  return {
    aside: Math.round(((left * y) / length) * (16 + 4 * Math.min(Math.max(name.length, 6), 8))),
    above: Math.round(((-left * x) / length) * 22),
    along: Math.round(Math.max((0.4 + 0.2 * nth) * length - 20, 8)),
  };
}

const SIDES = [
  ["top", "center", 0, -1],
  ["bottom", "center", 0, 1],
  ["center", "right", 1, 0],
  ["center", "left", -1, 0],
  ["top", "right", 1, -1],
  ["bottom", "right", 1, 1],
  ["top", "left", -1, -1],
  ["bottom", "left", -1, 1],
];

// For each vertex the side on which its words stand: the one farthest from its lines.
function sides(scene) {
  const lines = scene.vertices.map(() => []);
  for (const [a, b] of [...scene.edges.map((e) => [e.a, e.b]), ...scene.wires]) {
    const angle = Math.atan2(scene.vertices[b].y - scene.vertices[a].y, scene.vertices[b].x - scene.vertices[a].x);
    if (a !== b) {
      lines[a].push(angle);
      lines[b].push(angle + Math.PI);
    }
  }
  return scene.vertices.map((v, k) => {
    if (v.kind === "crossbar") return { valign: "center", halign: "center", dx: 0, dy: 0 };
    if (v.kind === "ground") return { valign: "bottom", halign: "center", dx: 0, dy: 4 };
    const room = ([, , x, y]) => Math.min(4, ...lines[k].map((angle) => Math.acos(Math.cos(Math.atan2(y, x) - angle))));
    const [valign, halign, x, y] = SIDES.reduce((best, side) => (room(side) > room(best) + 0.1 ? side : best));
    return { valign, halign, dx: (x && y ? -4 : 5) * x, dy: (x && y ? -2 : 5) * y };
  });
}

// How far a vertex is from the nearest other one, in the median.
function spacing(vertices) {
  const nearest = vertices.map((v) =>
    vertices.reduce((least, w) => (w === v ? least : Math.min(least, Math.hypot(w.x - v.x, w.y - v.y))), Infinity),
  );
  return nearest.sort((a, b) => a - b)[Math.floor(nearest.length / 2)];
}

export class Graph {
  // choose(kind, index): vertex or edge; hover(kind, index, x, y), or hover(null) at the end.
  constructor(box, { choose, hover, leave }) {
    this.box = box;
    this.cy = cytoscape({
      container: box,
      style: STYLE,
      minZoom: 0.02,
      maxZoom: 6,
      boxSelectionEnabled: false,
      selectionType: "single",
      autoungrabify: false,
    });
    this.cy.on("tap", "node, edge", (event) => choose(...this.#which(event.target)));
    this.cy.on("mouseover mousemove", "node, edge", (event) => {
      const place = event.originalEvent;
      hover(...this.#which(event.target), place.clientX, place.clientY);
    });
    this.cy.on("mouseout", "node, edge", () => leave());
    this.cy.on("viewport", () => leave());
    new ResizeObserver(() => {
      this.cy.resize();
      if (!this.moved) this.fit();
    }).observe(box);
    box.addEventListener(
      "wheel",
      () => {
        this.moved = true;
      },
      { passive: true },
    );
    box.addEventListener("pointerleave", () => leave());
    box.addEventListener("pointerdown", () => {
      this.moved = true;
    });
  }

  #which(element) {
    return [element.data("thing"), element.data("index")];
  }

  draw(scene) {
    this.scene = scene;
    const many = scene.edges.length > MANY;
    this.large = scene.vertices.length > LARGE ? Math.min(2.5, spacing(scene.vertices) / 40) : 1; // seen from afar
    const besideNodes = sides(scene);
    const nodes = scene.vertices.map((v, k) => ({
      group: "nodes",
      position: { x: v.x, y: v.y },
      data: {
        ...besideNodes[k],
        size: 26 * this.large,
        id: `v${k}`,
        thing: "vertex",
        index: k,
        kind: v.kind,
        hidden: v.hidden,
        fill: NONE,
        text: v.label,
      },
    }));
    const seen = {}; // edges between the same two vertices
    const nth = (e) => {
      const key = `${Math.min(e.a, e.b)} ${Math.max(e.a, e.b)}`;
      seen[key] = (seen[key] ?? -1) + 1;
      return seen[key] % 3;
    };
    const edges = scene.edges.map((e, k) => ({
      group: "edges",
      data: {
        id: `e${k}`,
        thing: "edge",
        index: k,
        kind: e.kind,
        source: `v${e.a}`,
        target: `v${e.b}`,
        fill: "#999",
        wide: 2,
        text: e.name,
        way: 0,
        ...besides(scene.vertices[e.a], scene.vertices[e.b], e.name, nth(e)),
      },
    }));
    const wires = scene.wires.map(([box, end], k) => ({
      group: "edges",
      data: {
        id: `w${k}`,
        thing: "vertex",
        index: box,
        kind: "wire",
        source: `v${end}`,
        target: `v${box}`,
        fill: "#999",
        wide: 2,
        text: "",
        way: 0,
        aside: 0,
        above: 0,
        along: 0,
      },
    }));
    this.cy.batch(() => {
      this.cy.elements().remove();
      this.cy.add([...nodes, ...edges, ...wires]);
      this.cy.edges().style("min-zoomed-font-size", many ? 11 : 7);
      if (scene.edges.length > DENSE) {
        this.cy.edges().style({ "curve-style": "haystack", "haystack-radius": 0, "source-label": "" });
      }
    });
    this.moved = false;
    this.fit();
  }

  // Colours, widths, arrows and words for an answer; returns the scale.
  paint(values, quantity, log) {
    const { scene } = this;
    const few = scene.edges.length <= MANY;
    const volts = (k) => (Array.isArray(values.vertices[k]) ? values.vertices[k][1] : values.vertices[k]);
    const column = { current: 1, power: 2 }[quantity];
    const number = (row) => (quantity === "current" && row[1] !== null ? Math.abs(row[1]) : row[column]);
    const numbers =
      quantity === "voltage"
        ? scene.vertices.map((v, k) => (v.kind === "crossbar" || v.kind === "ground" ? null : volts(k)))
        : quantity === "current"
          ? [...values.edges.map(number), ...values.wires.map((i) => (i === null ? null : Math.abs(i)))]
          : [
              ...values.edges.map(number),
              ...scene.vertices.map((v, k) => (v.kind === "crossbar" ? values.vertices[k] : null)),
            ];
    const scale = scaleOf(numbers, { voltage: "V", current: "A", power: "W" }[quantity], {
      log,
      lines: quantity !== "voltage",
    });
    const most = Math.max(
      1e-300,
      ...values.edges.map((row) => Math.abs(row[1] ?? 0)),
      ...values.wires.map((i) => Math.abs(i ?? 0)),
    );
    const width = (i) => this.large * (1.5 + 3 * Math.sqrt(Math.abs(i ?? 0) / most));
    const way = (i) => (Math.abs(i ?? 0) > NO_CURRENT * most ? Math.sign(i) : 0);
    this.cy.batch(() => {
      scene.vertices.forEach((v, k) => {
        const bar = v.kind === "crossbar",
          coloured = quantity === (bar ? "power" : "voltage");
        const fill = coloured ? scale.colour(volts(k)) : bar ? "#ffffff" : "#e9edf1";
        const words =
          few && v.kind === "node" ? withUnit(volts(k), "V") : coloured && bar ? withUnit(volts(k), "W") : "";
        const said = words ? `${v.label}\n${words}` : v.label;
        this.cy.getElementById(`v${k}`).data({ fill, text: v.hidden > 0 ? `${said}\n+${v.hidden} more` : said });
      });
      scene.edges.forEach((e, k) => {
        const row = values.edges[k];
        const blocks = e.kind === "D" && !(row[1] > NO_CURRENT * most);
        const what = { voltage: [row[3], e.unit], current: [row[1], "A"], power: [row[2], "W"] }[quantity];
        const name = e.count > 1 ? `${e.name} (${e.count})` : e.name;
        const text =
          few && what[0] !== null && what[1] && (e.count === 1 || quantity !== "voltage")
            ? `${name}\n${withUnit(what[0], what[1])}`
            : name;
        this.cy.getElementById(`e${k}`).data({
          text,
          blocks,
          way: way(row[1]),
          wide: width(row[1]),
          fill: column === undefined ? "#7d8895" : scale.colour(number(row)),
        });
      });
      scene.wires.forEach((_, k) => {
        const i = values.wires[k];
        this.cy.getElementById(`w${k}`).data({
          way: way(i),
          wide: width(i),
          fill: quantity === "current" && i !== null ? scale.colour(Math.abs(i)) : "#9aa5b1",
        });
      });
    });
    return scale;
  }

  select(thing, index) {
    this.cy.elements().unselect();
    const element = this.cy.getElementById(`${thing === "edge" ? "e" : "v"}${index}`);
    element.select();
    return element;
  }

  show(thing, index) {
    const element = this.select(thing, index);
    if (element.empty()) return;
    const [box, seen] = [this.cy.extent(), element.boundingBox()];
    if (seen.x1 < box.x1 || seen.x2 > box.x2 || seen.y1 < box.y1 || seen.y2 > box.y2 || this.cy.zoom() < 0.4) {
      this.moved = true;
      this.cy.zoom(Math.max(this.cy.zoom(), 0.8));
      this.cy.center(element);
    }
  }

  // Where something stands on the screen.
  place(thing, index) {
    const element = this.cy.getElementById(`${thing === "edge" ? "e" : "v"}${index}`);
    const at = thing === "edge" ? element.renderedMidpoint() : element.renderedPosition();
    const box = this.box.getBoundingClientRect();
    return [box.left + at.x, box.top + at.y];
  }

  fit() {
    if (this.cy.elements().length) {
      this.cy.fit(undefined, 46);
      if (this.cy.zoom() > 1.6) {
        this.cy.zoom(1.6);
        this.cy.center();
      }
    }
  }

  zoom(factor) {
    this.moved = true;
    this.cy.zoom({
      level: this.cy.zoom() * factor,
      renderedPosition: { x: this.cy.width() / 2, y: this.cy.height() / 2 },
    });
  }

  pan(x, y) {
    this.moved = true;
    this.cy.panBy({ x, y });
  }

  // The vertex next to one in a direction; the first one when there is none yet.
  next(index, [dx, dy]) {
    const { vertices } = this.scene;
    if (index === null) return 0;
    let best = index,
      least = Infinity;
    vertices.forEach((v, k) => {
      const [x, y] = [v.x - vertices[index].x, v.y - vertices[index].y];
      const ahead = x * dx + y * dy,
        aside = Math.abs(x * dy - y * dx);
      if (k !== index && ahead > 1 && ahead + 2 * aside < least) {
        least = ahead + 2 * aside;
        best = k;
      }
    });
    return best;
  }

  // The element after one (or the first) among those at a vertex.
  around(vertex, edge) {
    const own = this.scene.edges.flatMap((e, k) => (e.a === vertex || e.b === vertex ? [k] : []));
    return own.length ? own[(own.indexOf(edge) + 1) % own.length] : null;
  }
}
