// The page: what is asked, what is shown, what is changed. Data reaches the page as text and numbers only.

import { colourOf, curves } from "view/charts";
import { Digit } from "view/digit";
import { Graph } from "view/graph";
import { Heat } from "view/heat";
import { plain, scaleOf, showScale, withUnit } from "view/scales";

const KINDS = { R: "resistor", V: "voltage source", I: "current source", D: "diode", L: "inductor", C: "capacitor",
  E: "voltage-controlled voltage source", F: "current-controlled current source",
  G: "voltage-controlled current source", H: "current-controlled voltage source", N: "nonlinear resistor" };
const MOST_ROWS = 400;  // of a table
const MOST_SHOWN = 4096;  // units of a layer

const el = (id) => document.getElementById(id);
function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const embedded = JSON.parse(el("answers").textContent);
const live = embedded === null;

// An answer of the server, or of the file itself. Throws an Error with the server's words.
async function ask(what, body = {}) {
  if (!live) return answerInside(what, body);
  let response;
  try {
    response = await fetch(`api/${what}`, { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body) });
  } catch {
    throw new Error("circuitsim view has ended: start it again, and open the address that it prints");
  }
  const answer = await response.json();
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer;
}

function answerInside(what, body) {
  const keys = { crossbar: ["number", "quantity"], group: ["number"], unit: ["layer", "unit"], curve: ["card", "node"] };
  if (what === "find") return findInside(body.text.trim().toLowerCase());
  if (what === "node_at") return { name: embedded.nodes.names[body.number] };
  const key = [what, ...(keys[what] ?? []).map((name) => body[name])].join("/");
  if (!(key in embedded)) throw new Error("this file does not hold that; circuitsim view FILE does");
  return embedded[key];
}

function findInside(key) {
  const { vertices, edges } = embedded.scene;
  const names = [...vertices.filter((v) => v.kind !== "ground").map((v) => ({ name: v.label, what: v.kind, at: v.label })),
    ...edges.map((e) => ({ name: e.name, what: e.kind, at: e.name }))];
  return key ? names.filter((n) => n.name.toLowerCase().includes(key)).slice(0, 20) : [];
}

// -- state ------------------------------------------------------------------------------------------------------------

const state = { about: null, scene: null, centre: null, answer: null, changes: { values: {}, sweep: null, inputs: null },
  chosen: null, vertex: null, quantity: "voltage", log: false, tab: "circuit" };

const tip = {
  show(text, x, y, above = false) {
    const box = el("tip");
    box.textContent = text; box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const top = above || y + height + 20 > innerHeight ? y - height - 12 : y + 14;
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    box.style.top = `${Math.max(4, top)}px`;
  },
  hide() { el("tip").hidden = true; },
};
addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });

function fail(error) {
  const box = el("error");
  box.textContent = `${error.message}${state.answer ? "\nWhat is shown is the answer from before." : ""}`;
  box.hidden = false;
}

let asked = null;  // what waits for the answer that is under way
let busy = false;

// Ask for the equilibrium with other changes; the latest of several wins.
async function solve(part, { trace = false } = {}) {
  asked = { changes: { ...(asked?.changes ?? state.changes), ...part }, trace };
  if (busy) return;
  busy = true;
  const status = el("status");
  while (asked) {
    const now = asked;
    asked = null;
    status.classList.add("busy");
    try {
      const answer = await ask("answer", { changes: now.changes, centre: state.centre, trace: now.trace });
      state.changes = now.changes;
      state.answer = answer;
      el("error").hidden = true;
      showAnswer();
    } catch (error) {
      fail(error);
      showChanges();
    }
    status.classList.remove("busy");
  }
  busy = false;
}

// -- the circuit -------------------------------------------------------------------------------------------------------

const graph = new Graph(el("graph"), {
  choose: (thing, index) => choose(thing, index),
  hover: (thing, index, x, y) => tip.show(words(thing, index), x, y),
  leave: () => tip.hide(),
});

function words(thing, index) {
  const { scene, answer } = state;
  if (thing === "edge") {
    const e = scene.edges[index], [v, i, p] = answer.values.edges[index];
    const many = e.count > 1 ? `${e.count} members; mean voltage, sums of currents and powers\n` : "";
    return `${e.name}: ${KINDS[e.kind]}\n${many}${withUnit(v, "V")}, ${withUnit(i, "A")}, ${withUnit(p, "W")}\n${e.at}  ${e.text}`;
  }
  const v = scene.vertices[index], volts = answer.values.vertices[index];
  if (v.kind === "crossbar") return `crossbar ${v.label.replace("\n", ", ")}: absorbs ${withUnit(volts, "W")}\nclick to see its conductances`;
  if (v.kind === "group") return `${v.label}: ${v.count} nodes\n${volts.map((x) => withUnit(x, "V")).join(" ... ")} (lowest, mean, highest)`;
  const own = scene.edges.flatMap((e, k) => (e.a === index || e.b === index ? [k] : []));
  const lines = own.slice(0, 6).map((k) => `${scene.edges[k].name} ${withUnit(answer.values.edges[k][1], "A")}   ${scene.edges[k].at}  ${scene.edges[k].text}`);
  const more = own.length > 6 ? [`and ${own.length - 6} more`] : [];
  return [v.kind === "ground" ? "ground: 0 V" : `node ${v.label}: ${withUnit(volts, "V", 6)}`, ...lines, ...more].join("\n");
}

async function choose(thing, index, focus = false) {
  state.chosen = { thing, index };
  if (thing === "vertex") state.vertex = index;
  graph.select(thing, index);
  await showSelection();
  if (focus) graph.show(thing, index);
}

async function showScene() {
  graph.draw(state.scene);
  const part = el("part");
  part.hidden = state.scene.whole;
  const near = state.centre ?? "the first output, or the busiest node";
  part.textContent = `The circuit is too large to be drawn at once: this is what is near ${near}. Dashed nodes have `
    + "elements that are not drawn; choose one and centre the drawing there, or find a name.";
}

// Draw what is near a node.
async function centreOn(name) {
  try {
    state.scene = await ask("scene", { centre: name });
    state.centre = state.scene.whole ? null : name;
    state.chosen = null;
    await showScene();
    await solve({});
  } catch (error) { fail(error); }
}

function facts(...pairs) {
  return made("dl", {}, ...pairs.flatMap(([name, value]) => [made("dt", { textContent: name }), made("dd", { textContent: value })]));
}

async function showSelection() {
  const box = el("selection");
  if (!state.chosen) { box.replaceChildren(made("p", { className: "note", textContent: "Click a node, an element or a crossbar." })); return; }
  const { thing, index } = state.chosen;
  const { scene, answer } = state;
  if (thing === "edge") {
    const e = scene.edges[index], [v, i, p, value] = answer.values.edges[index];
    const ends = [e.a, e.b].map((k) => scene.vertices[k].label).join(" → ");
    const pairs = [["Kind", KINDS[e.kind]], ["From → to", ends], ["Voltage", withUnit(v, "V", 6)], ["Current", withUnit(i, "A", 6)],
      ["Power absorbed", withUnit(p, "W", 6)]];
    if (e.unit && value !== null) pairs.splice(2, 0, ["Value", withUnit(value, e.unit, 6)]);
    if (e.count > 1) pairs.unshift(["Members", `${e.count}: mean voltage and value, sum of current and power`]);
    box.replaceChildren(made("h3", { textContent: e.name }), facts(...pairs), made("p", { className: "line", textContent: `${e.at}  ${e.text}` }));
    if (e.unit && live) { el("edit-name").value = e.name; el("edit-value").value = plain(value); el("edit-unit").textContent = `(${e.unit})`; }
    return;
  }
  const v = scene.vertices[index];
  if (v.kind === "crossbar") { await showCrossbar(box, v.key); return; }
  if (v.kind === "group") { await showGroup(box, v); return; }
  const own = scene.edges.flatMap((e, k) => (e.a === index || e.b === index ? [k] : []));
  const rows = own.slice(0, 40).map((k) => made("tr", {},
    made("td", {}, made("button", { type: "button", textContent: scene.edges[k].name, onclick: () => choose("edge", k, true) })),
    made("td", { className: "n", textContent: withUnit(answer.values.edges[k][1], "A") }),
    made("td", { className: "n", textContent: withUnit(answer.values.edges[k][2], "W") })));
  box.replaceChildren(made("h3", { textContent: v.kind === "ground" ? "ground" : `node ${v.label}` }),
    facts(["Voltage", withUnit(answer.values.vertices[index], "V", 6)], ["Elements", `${own.length + v.hidden}`]),
    ...(own.length ? [made("table", {}, made("tbody", {}, ...rows))] : []));
  if (v.hidden > 0 && live) box.append(made("button", { type: "button", className: "plain", textContent: `Draw what is near ${v.label}`, onclick: () => centreOn(v.label) }));
}

let crossbarQuantity = "conductance";
async function showCrossbar(box, number) {
  let found;
  const about = state.about.crossbars[number];
  const head = made("h3", { textContent: `crossbar ${about.name}` });
  try {
    found = await ask("crossbar", { changes: state.changes, number, quantity: crossbarQuantity });
  } catch (error) { box.replaceChildren(head, made("p", { className: "note", textContent: error.message })); return; }
  const single = found.blocks[0] === 1 && found.blocks[1] === 1;
  const name = (row, col) => `${found.name}[${found.first[0] + row * found.step[0]}][${found.first[1] + col * found.step[1]}]`;
  const heat = new Heat({ label: "", tip, size: 330,
    tell: (row, col, value) => (single ? `${name(row, col)}\n${crossbarQuantity} ${value}`
      : `rows from ${row * found.blocks[0]}, columns from ${col * found.blocks[1]}: mean ${crossbarQuantity} ${value}`),
    pick: (row, col) => {
      if (!single || !live) return;
      el("edit-name").value = name(row, col);
      el("edit-value").value = crossbarQuantity === "conductance" ? plain(found.values[row * found.cols + col]) : "";
      el("edit-unit").textContent = "(S)";
      el("edit-value").focus();
    } });
  heat.show({ ...found, label: `${crossbarQuantity}: rows down, columns across${single ? "" : `; means of ${found.blocks[0]} × ${found.blocks[1]}`}` });
  const choice = made("select", { onchange: (event) => { crossbarQuantity = event.target.value; showCrossbar(box, number); } },
    ...["conductance", "current", "power"].map((q) => made("option", { value: q, textContent: q, selected: q === crossbarQuantity })));
  box.replaceChildren(head, facts(["Size", `${about.rows} rows × ${about.cols} columns`], ["Power absorbed", withUnit(state.answer.values.vertices[state.scene.vertices.findIndex((v) => v.kind === "crossbar" && v.key === number)], "W", 6)], ["Conductances", `${about.conductances.toLocaleString("en")} that are not 0`]),
    made("label", {}, "Show ", choice), heat.root);
}

async function showGroup(box, vertex) {
  let found;
  try {
    found = await ask("group", { changes: state.changes, number: vertex.key });
  } catch (error) { fail(error); return; }
  const heat = new Heat({ label: `voltages of ${vertex.label}`, tip, size: 330, tell: (row, col, value) => cellWords(found, row, col, value) });
  heat.show(found);
  const member = found.names?.indexOf(state.member) ?? -1;  // what was looked for
  const own = member >= 0 && found.blocks[0] * found.blocks[1] === 1 ? [[state.member, withUnit(found.values[member], "V", 6)]] : [];
  box.replaceChildren(made("h3", { textContent: vertex.label }), facts(["Nodes", `${vertex.count}`], ...own), heat.root);
}

function cellWords(found, row, col, value) {
  const [tall, wide] = found.blocks, k = row * tall * found.width + col * wide;
  return tall * wide > 1 ? `mean of ${tall} × ${wide} nodes from number ${k}: ${value}` : `${found.names ? found.names[k] : `node ${k}`}: ${value}`;
}

// -- answers ----------------------------------------------------------------------------------------------------------

function showAnswer() {
  const { answer } = state, c = answer.certificate;
  recolour();
  el("status").replaceChildren(made("b", { textContent: "✓ Solved" }),
    `  KCL error ${small(c.residuals.kcl_amps, "A")}, relative ${small(c.residuals.kcl_relative)}\nin ${withUnit(c.seconds, "s", 3)}, ${c.method}, ${c.steps} step${c.steps === 1 ? "" : "s"}`);
  const r = c.residuals;
  el("certificate").replaceChildren(...facts(
    ["Status", `${c.status}: ${c.message}`],
    ["KCL, relative", `${small(r.kcl_relative)} (allowed ${c.tolerance.toExponential(0)})`], ["KCL", small(r.kcl_amps, "A")],
    ["Diode bounds", small(r.clamp_volts, "V")], ["Complementarity", small(r.complementarity_watts, "W")],
    ["Power balance", small(r.power_balance_watts, "W")], ["Energy gap", small(r.gap_watts, "W")],
    ["Method", `${c.method} (${c.why}), ${c.backend}`], ["Time", withUnit(c.seconds, "s", 3)]).children);
  const remarks = [...state.about.warnings, ...c.remarks, ...(c.undetermined ? [`${c.undetermined} nodes have no unique voltage`] : [])];
  el("warnings").hidden = remarks.length === 0;
  el("warning-list").replaceChildren(...remarks.map((text) => made("li", { textContent: text })));
  showChanges();
  showSelection();
  if (picture) picture.show(answer);
  if (state.tab === "table") showTable();
  if (state.tab === "nodes") showNodes();
  markCurve();
}

// An error: its size matters, not its digits.
function small(x, unit = "") { return x === null ? "unknown" : `${x === 0 ? "0" : x.toExponential(1)} ${unit}`.trim(); }

function recolour() {
  const scale = graph.paint(state.answer.values, state.quantity, state.log);
  const name = { voltage: "node voltage", current: "|current|", power: "power absorbed" }[state.quantity];
  showScale(el("legend"), scale, name);
}

function showChanges() {
  if (!live) return;
  const { values, sweep, inputs } = state.changes;
  const items = Object.entries(values).map(([name, value]) => made("li", {}, `${name} = ${value}`,
    made("button", { type: "button", textContent: "take back", "aria-label": `Take back ${name}`, onclick: () => {
      const rest = { ...values };
      delete rest[name];
      solve({ values: rest });
    } })));
  el("changes").replaceChildren(...items);
  el("reset").hidden = !(items.length || sweep || inputs);
}

function showTable() {
  const { scene, answer } = state, box = el("panel-table");
  const nodes = scene.vertices.map((v, k) => [v, k]).filter(([v]) => v.kind !== "crossbar" && v.kind !== "ground");
  const cell = (text, number = false) => made("td", { className: number ? "n" : "", textContent: text });
  const link = (text, thing, k) => made("td", {}, made("button", { type: "button", textContent: text, onclick: () => { openTab("circuit"); choose(thing, k, true); } }));
  const head = (...names) => made("thead", {}, made("tr", {}, ...names.map((n) => made("th", { scope: "col", textContent: n }))));
  const volts = (k) => { const x = answer.values.vertices[k]; return Array.isArray(x) ? x.map((y) => withUnit(y, "V")).join(" ... ") : withUnit(x, "V", 6); };
  const left = made("table", {}, made("caption", { textContent: "Nodes" }), head("Node", "Voltage"),
    made("tbody", {}, ...nodes.slice(0, MOST_ROWS).map(([v, k]) => made("tr", {}, link(v.label, "vertex", k), cell(volts(k), true)))));
  const right = made("table", {}, made("caption", { textContent: "Elements" }), head("Element", "Kind", "Value", "Voltage", "Current", "Power", "Netlist"),
    made("tbody", {}, ...scene.edges.slice(0, MOST_ROWS).map((e, k) => {
      const [v, i, p, value] = answer.values.edges[k];
      return made("tr", {}, link(e.count > 1 ? `${e.name} (${e.count})` : e.name, "edge", k), cell(KINDS[e.kind]), cell(value === null ? "" : `${e.count > 1 ? "mean " : ""}${withUnit(value, e.unit)}`, true),
        cell(withUnit(v, "V"), true), cell(withUnit(i, "A"), true), cell(withUnit(p, "W"), true), made("td", {}, made("code", { textContent: `${e.at}  ${e.text}` })));
    })));
  const cut = nodes.length > MOST_ROWS || scene.edges.length > MOST_ROWS ? [made("p", { className: "note", textContent: `The first ${MOST_ROWS} of ${nodes.length} nodes and ${scene.edges.length} elements; find others by name.` })] : [];
  box.replaceChildren(...cut, made("div", { className: "row" }, left, right));
}

async function showNodes() {
  let found;
  try { found = await ask("nodes", { changes: state.changes }); } catch (error) { fail(error); return; }
  const heat = new Heat({ label: "", tip, size: 620, tell: (row, col, value) => cellWords(found, row, col, value),
    pick: async (row, col) => {
      const [tall, wide] = found.blocks;
      try { const { name } = await ask("node_at", { number: row * tall * found.width + col * wide }); openTab("circuit"); await goTo({ name, what: "node", at: name }); } catch (error) { fail(error); }
    } });
  heat.show({ ...found, label: "Voltages of all nodes in the order of the netlist, row by row; choose one to see it in the circuit" });
  el("panel-nodes").replaceChildren(heat.root);
}

// -- search -----------------------------------------------------------------------------------------------------------

async function goTo(hit) {
  const look = () => {
    const { vertices, edges } = state.scene;
    const vertex = vertices.findIndex((v) => v.label === hit.at || (hit.what === "crossbar" && v.label.startsWith(`${hit.name}\n`)));
    if (vertex >= 0 && (hit.what === "node" || hit.what === "crossbar" || hit.what === "group")) return ["vertex", vertex];
    const edge = edges.findIndex((e) => e.name === hit.name || (e.count > 1 && hit.name.startsWith(`${e.name}[`)));
    return edge >= 0 ? ["edge", edge] : null;
  };
  if (state.tab !== "circuit") openTab("circuit");
  if (!look() && !state.scene.whole && live) await centreOn(hit.name);
  const seen = look();
  state.member = hit.name;
  if (seen) await choose(...seen, true);
  else el("selection").replaceChildren(made("p", { className: "note", textContent: `${hit.name} is not in the drawing.` }));
  if (seen && live && hit.what !== "node" && hit.what !== "crossbar" && hit.what !== "group") el("edit-name").value = hit.name;
}

let found = [];
async function search() {
  const text = el("find").value;
  try { found = text.trim() ? await ask("find", { text }) : []; } catch (error) { fail(error); return; }
  if (el("find").value !== text) return;
  const items = found.map((hit) => made("li", {}, made("button", { type: "button", onclick: () => goTo(hit),
    textContent: `${hit.name}  (${KINDS[hit.what] ?? hit.what}${hit.at !== hit.name ? ` in ${hit.at}` : ""})` })));
  el("found").replaceChildren(...(text.trim() && !items.length ? [made("li", { className: "note", textContent: "no such name" })] : items));
}
let typing = null;
el("find").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 120); });
el("search").addEventListener("submit", async (event) => { event.preventDefault(); clearTimeout(typing); await search(); if (found.length) goTo(found[0]); });

// -- changes ----------------------------------------------------------------------------------------------------------

el("edit").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = el("edit-name").value.trim(), value = el("edit-value").value.trim();
  if (name && value) solve({ values: { ...state.changes.values, [name]: value } });
});
el("edit-name").addEventListener("input", () => { el("edit-unit").textContent = ""; });
el("reset").addEventListener("click", () => {
  solve({ values: {}, sweep: null, inputs: null });
  if (current) showSweep(current);
});

function setUpSweeps() {
  const { sweeps } = state.about;
  el("sweeps").hidden = sweeps.length === 0;
  if (sweeps.length > 1) {
    const choice = made("select", { onchange: () => showSweep(sweeps[Number(choice.value)]) },
      ...sweeps.map((sweep, k) => made("option", { value: k, textContent: sweep.line })));
    el("sweeps-head").after(made("label", {}, "Card ", choice));
  }
  if (sweeps.length) showSweep(sweeps[0]);
}

// Sliders for the points of a .dc card, and the curve of a node.
let current = null;
function showSweep(sweep) {
  current = sweep;
  const point = sweep.axes.map(() => 0);
  const axes = sweep.axes.map((axis, k) => {
    const said = made("output", { textContent: `${axis.name}: as in the netlist` });
    const input = made("input", { type: "range", min: 0, max: axis.points.length - 1, step: 1, value: 0, id: `axis-${k}`, disabled: !live });
    input.addEventListener("input", () => {
      point[k] = Number(input.value);
      sweep.axes.forEach((other, n) => sayPoint(n, `${other.name} = ${withUnit(other.points[point[n]], other.unit)}`));
      solve({ sweep: { card: sweep.card, point: [...point] } });
    });
    return made("div", {}, made("label", { htmlFor: `axis-${k}` }, said), input);
  });
  const nodes = state.scene.vertices.filter((v) => v.kind === "node").map((v) => v.label);
  const choice = made("select", { onchange: () => drawCurve(sweep, choice.value) }, ...nodes.slice(0, 200).map((n) => made("option", { value: n, textContent: n })));
  el("sweep-axes").replaceChildren(made("p", { className: "line", textContent: sweep.line }), ...axes,
    made("label", {}, "Voltage of ", choice, " over the sweep, without other changes"));
  choice.value = state.about.outputs.find((n) => nodes.includes(n)) ?? nodes[nodes.length - 1];
  if (choice.value) drawCurve(sweep, choice.value);
}

function sayPoint(k, text) {
  const input = el(`axis-${k}`);
  input.previousSibling.firstChild.textContent = text;
  input.setAttribute("aria-valuetext", text);
}

let shown = null;  // the curve
async function drawCurve(sweep, node) {
  try {
    const curve = await ask("curve", { card: sweep.card, node });
    shown = { sweep, node, curve };
    markCurve();
  } catch (error) { shown = null; el("curve").replaceChildren(made("p", { className: "note", textContent: error.message })); }
}

function markCurve() {
  if (!shown) return;
  const { sweep, node, curve } = shown, axis = sweep.axes[0];
  const point = state.changes.sweep?.point ?? [];  // of its axes but the first: the curve that is thicker
  let [now, size] = [0, 1];
  sweep.axes.slice(1).forEach((other, k) => { now += size * (point[k + 1] ?? NaN); size *= other.points.length; });
  curves(el("curve"), { x: curve.x, lines: curve.lines.map((values, k) => ({ label: `${k}`, values, wide: k === now && curve.lines.length > 1 })), mark: point.length ? axis.points[point[0]] : null,
    xLabel: axis.unit ? `${axis.name} (${axis.unit})` : axis.name, yLabel: `v(${node})`,
    pick: live ? (k) => { const input = el("axis-0"); input.value = k; input.dispatchEvent(new Event("input")); } : null });
}

// -- drawing a picture for a network to read --------------------------------------------------------------------------

let picture = null;

class Picture {
  constructor(about) {
    this.about = about;
    this.unit = null;
    this.box = el("panel-picture");
    const canvas = made("canvas", { className: "draw", tabIndex: 0, width: 280, height: 280, "aria-describedby": "draw-keys",
      "aria-label": "Draw a digit here" });
    canvas.setAttribute("role", "application");
    this.digit = new Digit(canvas, about.side, () => this.send());
    this.gain = made("input", { type: "text", value: plain(about.gain), id: "gain", inputMode: "decimal" });
    this.gain.addEventListener("change", () => this.send());
    const buttons = made("div", { className: "buttons" },
      made("button", { type: "button", id: "clear", textContent: "Clear", onclick: () => { this.digit.clear(); this.drawn = false; this.send(); } }),
      made("button", { type: "button", id: "given", className: "plain", textContent: "The netlist's picture", onclick: () => { this.digit.clear(); this.drawn = false; solve({ inputs: null }, { trace: true }); } }),
      made("label", {}, "White, V", this.gain),
      made("p", { id: "draw-keys", className: "keys", textContent: "Mouse, or keys: arrows move the pen, space puts it down or lifts it, Delete clears." }));
    const draw = made("div", {}, made("h3", { textContent: "Draw a digit" }), canvas, ...(live ? [buttons] : []));
    if (!live) draw.hidden = true;
    const rest = about.sizes.slice(1, -1);
    this.input = new Heat({ label: `inputs ${about.labels[0]}`, tip, size: 200, tell: (row, col, value) => `pixel ${row}, ${col}: ${value}` });
    this.hidden = rest.map((size, k) => new Heat({ label: `hidden ${about.labels[k + 1]}`, tip, size: 220,
      tell: (row, col, value) => `unit ${row * this.width(k + 1) + col}: ${value}; click: what comes into it`,
      pick: (row, col) => this.choose(k + 1, row * this.width(k + 1) + col) }));
    this.outputs = made("div", { className: "outputs" });
    this.settling = made("div", { id: "settling" });
    this.detail = made("section", { id: "unit", "aria-live": "polite" });
    const part = (name, ...children) => made("div", {}, made("h3", { textContent: name }), ...children);
    this.box.replaceChildren(
      made("div", { className: "row" }, draw, part("Output voltages", this.outputs),
        part("Settling, sweep by sweep", this.settling), part("Inputs", this.input.root),
        ...this.hidden.map((heat, k) => part(`Hidden layer${rest.length > 1 ? ` ${k + 1}` : ""}`, heat.root))),
      this.detail);
  }

  width(layer) { const n = Math.min(this.about.sizes[layer], MOST_SHOWN); return Math.max(1, Math.ceil(Math.sqrt(n))); }

  send() {
    const gain = Number(this.gain.value);
    if (!Number.isFinite(gain)) { fail(new Error(`white: '${this.gain.value}' is not a number of volts`)); return; }
    const grey = this.digit.pixels().map((x) => gain * x);
    solve({ inputs: this.about.pair ? [...grey, ...grey.map((x) => -x)] : grey }, { trace: true });
  }

  show(answer) {
    clearTimeout(this.timer);
    this.final = answer.layers;
    const frames = matchMedia("(prefers-reduced-motion: reduce)").matches ? [] : answer.frames;
    if (answer.frames.length) this.chart(answer.frames);
    this.play(frames, 0);
    if (this.unit) this.choose(...this.unit);
  }

  // One frame after the other, then the certified answer.
  play(frames, k) {
    const sizes = this.about.sizes.slice(1);
    if (k >= frames.length) { this.layers(this.final); return; }
    let start = 0;
    this.layers([this.final[0], ...sizes.map((n) => { start += n; return frames[k].slice(start - n, start); })]);
    this.timer = setTimeout(() => this.play(frames, k + 1), 90);
  }

  layers(layers) {
    const { side } = this.about;
    this.input.show({ rows: side, cols: side, values: layers[0].slice(0, side * side), unit: "V", label: this.about.pair ? `${this.about.labels[0]}, first half` : this.about.labels[0] });
    this.hidden.forEach((heat, k) => {
      const cols = this.width(k + 1), values = layers[k + 1].slice(0, MOST_SHOWN);
      const rows = Math.ceil(values.length / cols);
      heat.show({ rows, cols, unit: "V", values: [...values, ...new Array(rows * cols - values.length).fill(null)],
        scale: scaleOf(this.final[k + 1], "V", { symmetric: true }), label: this.about.labels[k + 1] });
    });
    this.bars(layers[layers.length - 1].slice(0, 64));
  }

  bars(y) {
    const final = this.final[this.final.length - 1];
    const low = Math.min(0, ...final), high = Math.max(0, ...final), span = high - low || 1;
    const best = final.indexOf(Math.max(...final));
    const layer = this.about.sizes.length - 1;
    if (this.outputs.children.length !== 3 * y.length) {
      this.outputs.replaceChildren(...y.flatMap((_, k) => [made("button", { type: "button", textContent: `${k}`, "aria-label": `Output ${k}: what comes into it`, onclick: () => this.choose(layer, k) }),
        made("div", { className: "track", "aria-hidden": "true" }, made("div", { className: "fill" })), made("span", {})]));
    }
    y.forEach((v, k) => {
      const [name, track, value] = [0, 1, 2].map((n) => this.outputs.children[3 * k + n]);
      const x = Math.min(Math.max(v, low), high), fill = track.firstChild;
      fill.style.left = `${(Math.min(x, 0) - low) / span * 100}%`;
      fill.style.width = `${Math.abs(x) / span * 100}%`;
      for (const part of [name, fill, value]) part.classList.toggle("best", k === best);
      value.textContent = withUnit(v, "V") + (k === best ? "  ← highest" : "");
    });
  }

  chart(frames) {
    const n = this.about.sizes.at(-1), best = this.final.at(-1).indexOf(Math.max(...this.final.at(-1)));
    const lines = Array.from({ length: Math.min(n, 20) }, (_, k) => ({ label: `${k}`, wide: k === best, values: frames.map((f) => f[f.length - n + k]) }));
    curves(this.settling, { x: frames.map((_, k) => k), lines, xLabel: "sweeps from 0 V", yLabel: "outputs", width: 360, height: 210 });
    const key = made("p", { className: "keys" }, ...lines.map((line, k) => { const s = made("span", { textContent: `${line.wide ? "━ " : "─ "}${k}  ` }); s.style.color = colourOf(k); return s; }));
    this.settling.append(key);
  }

  // What comes into a unit: conductances and currents, laid out like the layer before.
  async choose(layer, unit) {
    this.unit = [layer, unit];
    let found;
    try { found = await ask("unit", { changes: state.changes, layer, unit }); } catch (error) { this.detail.replaceChildren(made("p", { className: "note", textContent: error.message })); return; }
    const { side, pair } = this.about, first = layer === 1;
    const heats = [];
    const add = (values, unitName, label, symmetric, scale) => {
      const cols = first ? side : this.width(layer - 1), rows = Math.ceil(values.length / cols);
      const heat = new Heat({ label, tip, size: 210, tell: (row, col, value) => `${first ? `pixel ${row}, ${col}` : `unit ${row * cols + col}`}: ${value}` });
      heat.show({ rows, cols, values: [...values, ...new Array(rows * cols - values.length).fill(null)], unit: unitName, label, symmetric, scale });
      heats.push(heat.root);
    };
    const halves = first && pair ? [["from +pixels", 0, side * side], ["from −pixels", side * side, 2 * side * side]] : [["", 0, Math.min(found.g.length, MOST_SHOWN)]];
    const [gScale, iScale] = [scaleOf(found.g, "S"), scaleOf(found.i, "A", { symmetric: true })];
    for (const [said, from, to] of halves) add(found.g.slice(from, to), "S", `conductances ${said}`, false, gScale);
    for (const [said, from, to] of halves) add(found.i.slice(from, to), "A", `currents ${said}`, true, iScale);
    this.detail.replaceChildren(made("h3", { textContent: `What comes into ${found.name}: ${withUnit(found.sum, "A")} through ${this.about.crossbars[layer - 1]}, at ${withUnit(found.voltage, "V")}` }),
      made("p", { className: "note", textContent: "Orange: current into the unit; blue: out of it. Each pixel is the conductance, or the current, from one input or unit of the layer before." }),
      made("div", { className: "row" }, ...heats));
  }
}

// -- tabs and keys ----------------------------------------------------------------------------------------------------

const TABS = { picture: "Draw a digit", circuit: "Circuit", nodes: "All nodes", table: "Table" };

function openTab(name) {
  state.tab = name;
  for (const key of Object.keys(TABS)) {
    el(`panel-${key}`).hidden = key !== name;
    const tab = el(`tab-${key}`);
    if (tab) { tab.setAttribute("aria-selected", String(key === name)); tab.tabIndex = key === name ? 0 : -1; }
  }
  el("quantities").hidden = el("legend").hidden = name !== "circuit";
  if (name === "table") showTable();
  if (name === "nodes") showNodes();
}

function setUpTabs() {
  const { about } = state;
  const names = Object.keys(TABS).filter((name) => (name !== "picture" || about.layers) && (name !== "nodes" || about.nodes > 60));
  if (!live) TABS.picture = "Picture";
  el("tabs").replaceChildren(...names.map((name) => made("button", { type: "button", id: `tab-${name}`, role: "tab",
    textContent: TABS[name], "aria-controls": `panel-${name}`, onclick: () => openTab(name) })));
  el("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
    openTab(next);
    el(`tab-${next}`).focus();
  });
  openTab(names[0]);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
el("graph").addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (arrow && event.shiftKey) graph.pan(-60 * arrow[0], -60 * arrow[1]);
  else if (arrow) goBy("vertex", graph.next(state.vertex, arrow));
  else if (event.key === "n" || event.key === "p") {
    const count = state.scene.vertices.length;
    goBy("vertex", ((state.vertex ?? -1) + (event.key === "n" ? 1 : count - 1)) % count);
  } else if (event.key === "e" && state.vertex !== null) {
    const edge = graph.around(state.vertex, state.chosen?.thing === "edge" ? state.chosen.index : -1);
    if (edge !== null) goBy("edge", edge);
  } else if (event.key === "+" || event.key === "=") graph.zoom(1.25);
  else if (event.key === "-") graph.zoom(0.8);
  else if (event.key === "0") { graph.moved = false; graph.fit(); }
  else if (event.key === "Enter" && live && state.chosen?.thing === "edge") { el("edit-value").focus(); el("edit-value").select(); }
  else return;
  event.preventDefault();
});

async function goBy(thing, index) {
  await choose(thing, index, true);
  tip.show(words(thing, index), ...graph.place(thing, index));
}
el("graph").addEventListener("blur", () => tip.hide());
el("zoom-in").addEventListener("click", () => graph.zoom(1.25));
el("zoom-out").addEventListener("click", () => graph.zoom(0.8));
el("fit").addEventListener("click", () => { graph.moved = false; graph.fit(); });
for (const radio of document.querySelectorAll("input[name=quantity]")) {
  radio.addEventListener("change", () => { state.quantity = radio.value; recolour(); });
}
el("log").addEventListener("change", (event) => { state.log = event.target.checked; recolour(); });

// -- start ------------------------------------------------------------------------------------------------------------

async function start() {
  try {
    state.about = await ask("about");
    state.scene = await ask("scene", { centre: null });
    const { about } = state;
    const kinds = Object.entries(about.elements).map(([kind, n]) => `${n.toLocaleString("en")} ${KINDS[kind]}${n === 1 ? "" : "s"}`);
    const bars = about.crossbars.length ? [`${about.crossbars.length} crossbar${about.crossbars.length === 1 ? "" : "s"} of ${about.crossbars.reduce((sum, x) => sum + x.conductances, 0).toLocaleString("en")} conductances`] : [];
    el("title").textContent = about.title || about.file;
    el("counts").textContent = [about.file, `${about.nodes.toLocaleString("en")} nodes`, ...kinds, ...bars].join(" · ");
    if (!live) { el("change").replaceChildren(made("p", { className: "note", textContent: "This file shows one solution. To change values: circuitsim view FILE" })); }
    await showScene();
    if (about.layers) picture = new Picture(about.layers);
    setUpTabs();
    await solve({}, { trace: true });
    setUpSweeps();
  } catch (error) { fail(error); }
}
start();
