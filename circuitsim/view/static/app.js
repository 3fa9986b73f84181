// The page: what is asked, what is shown, what is changed. Data reaches the page as text and numbers only.

import { ask, live } from "view/ask";
import { KINDS, counted, el, facts, fail, made, small, tip } from "view/dom";
import { Graph } from "view/graph";
import { Picture } from "view/picture";
import { showScale, withUnit } from "view/scales";
import { showSelection, words } from "view/selection";
import { solve, state, withValue, without } from "view/state";
import { markCurve, resetSweeps, setUpSweeps } from "view/sweeps";
import { showNodes, showTable } from "view/tables";

let picture = null;
const change = (edit, options) => solve(edit, showAnswer, options);

// -- the circuit ----------------------------------------------------------------------------------------------------

const graph = new Graph(el("graph"), {
  choose: (thing, index) => choose(thing, index),
  hover: (thing, index, x, y) => tip.show(words(thing, index), x, y),
  leave: () => tip.hide(),
});

// Whether it is still what is chosen, when all is told about it.
async function choose(thing, index, focus = false) {
  const chosen = { thing, index };
  state.chosen = chosen;
  if (thing === "vertex") state.vertex = index;
  graph.select(thing, index);
  await showSelection({ choose, centreOn });
  const still = state.chosen === chosen;
  if (focus && still) graph.show(thing, index);
  return still;
}

function showScene() {
  graph.draw(state.scene);
  const part = el("part");
  part.hidden = state.scene.whole;
  const near = state.centre ?? "the first output, or the busiest node";
  part.textContent = state.scene.all_nodes
    ? "All nodes are drawn, but not all elements: where many join the same two nodes, some are left out. " +
      "Dashed nodes have elements that are not drawn; their values can be changed by name."
    : `The circuit is too large to be drawn at once: this is the part near ${near}. Dashed nodes have ` +
      "elements that are not drawn; choose one and centre the drawing there, or find a name.";
}

// Draw what is near a node.
const centreOn = (name) => change(() => ({}), { centre: name });

// -- answers -------------------------------------------------------------------------------------------------------

function showAnswer() {
  const { answer } = state,
    c = answer.certificate;
  if (graph.scene !== state.scene) showScene();
  recolour();
  el("status").replaceChildren(
    made("b", { textContent: "✓ Solved" }),
    `  KCL error ${small(c.residuals.kcl_amps, "A")}, relative ${small(c.residuals.kcl_relative)}\n`,
    `in ${withUnit(c.seconds, "s", 3)}, ${c.method}, ${counted(c.steps, "step")}`,
  );
  const r = c.residuals;
  el("certificate").replaceChildren(
    ...facts(
      ["Status", `${c.status}: ${c.message}`],
      ["KCL, relative", `${small(r.kcl_relative)} (allowed ${c.tolerance.toExponential(0)})`],
      ["KCL", small(r.kcl_amps, "A")],
      ["Diode bounds", small(r.clamp_volts, "V")],
      ["Complementarity", small(r.complementarity_watts, "W")],
      ["Power balance", small(r.power_balance_watts, "W")],
      ["Energy gap", small(r.gap_watts, "W")],
      ["Method", `${c.method} (${c.why}), ${c.backend}`],
      ["Time", withUnit(c.seconds, "s", 3)],
    ).children,
  );
  const remarks = [
    ...state.about.warnings,
    ...c.remarks,
    ...(c.undetermined ? [`${c.undetermined} nodes have no unique voltage`] : []),
  ];
  el("warnings").hidden = remarks.length === 0;
  el("warning-list").replaceChildren(...remarks.map((text) => made("li", { textContent: text })));
  showChanges();
  showSelection({ choose, centreOn });
  if (picture) picture.show(answer);
  if (state.tab === "table") showTable(openAt);
  if (state.tab === "nodes") showNodes(goTo);
  markCurve();
}

function recolour() {
  const scale = graph.paint(state.answer.values, state.quantity, state.log);
  const name = { voltage: "node voltage", current: "|current|", power: "power absorbed" }[state.quantity];
  showScale(el("legend"), scale, name);
}

function showChanges() {
  if (!live) return;
  const { values, sweep, inputs } = state.changes;
  const items = Object.entries(values).map(([name, value]) =>
    made(
      "li",
      {},
      `${name} = ${value}`,
      made("button", {
        type: "button",
        textContent: "undo",
        "aria-label": `Undo ${name}`,
        onclick: () => change((before) => ({ values: without(before.values, name) })),
      }),
    ),
  );
  el("changes").replaceChildren(...items);
  el("reset").hidden = !(items.length || sweep || inputs);
}

// -- search --------------------------------------------------------------------------------------------------------

async function goTo(hit) {
  const look = () => {
    const { vertices, edges } = state.scene;
    const vertex = vertices.findIndex(
      (v) => v.label === hit.at || (hit.what === "crossbar" && v.label.startsWith(`${hit.name}\n`)),
    );
    if (vertex >= 0 && (hit.what === "node" || hit.what === "crossbar" || hit.what === "group"))
      return ["vertex", vertex];
    const edge = edges.findIndex((e) => e.name === hit.name || (e.count > 1 && hit.name.startsWith(`${e.name}[`)));
    return edge >= 0 ? ["edge", edge] : null;
  };
  if (state.tab !== "circuit") openTab("circuit");
  if (!look() && !state.scene.all_nodes && live) await centreOn(hit.name);
  const seen = look();
  state.member = hit.name;
  if (seen) await choose(...seen, true);
  else
    el("selection").replaceChildren(
      made("p", { className: "note", textContent: `${hit.name} is not in the drawing.` }),
    );
  if (live && hit.what !== "node" && hit.what !== "crossbar" && hit.what !== "group")
    el("edit-name").value = hit.name;
}

let found = [];
async function search() {
  const text = el("find").value;
  try {
    found = text.trim() ? await ask("find", { text }) : [];
  } catch (error) {
    fail(error);
    return;
  }
  if (el("find").value !== text) return;
  const items = found.map((hit) =>
    made(
      "li",
      {},
      made("button", {
        type: "button",
        onclick: () => goTo(hit),
        textContent: `${hit.name}  (${KINDS[hit.what] ?? hit.what}${hit.at !== hit.name ? ` in ${hit.at}` : ""})`,
      }),
    ),
  );
  el("found").replaceChildren(
    ...(text.trim() && !items.length ? [made("li", { className: "note", textContent: "no such name" })] : items),
  );
}
let typing = null;
el("find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 120);
});
el("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  clearTimeout(typing);
  await search();
  if (found.length) goTo(found[0]);
});

// -- changes -------------------------------------------------------------------------------------------------------

el("edit").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = el("edit-name").value.trim(),
    value = el("edit-value").value.trim();
  if (name && value) change(({ values }) => ({ values: withValue(values, name, value) }));
});
el("edit-name").addEventListener("input", () => {
  el("edit-unit").textContent = "";
});
el("reset").addEventListener("click", () => {
  change(() => ({ values: {}, sweep: null, inputs: null }));
  resetSweeps();
});

// -- tabs and keys ----------------------------------------------------------------------------------------------------

const TABS = { picture: "Draw a digit", circuit: "Circuit", nodes: "All nodes", table: "Table" };

function openTab(name) {
  state.tab = name;
  for (const key of Object.keys(TABS)) {
    el(`panel-${key}`).hidden = key !== name;
    const tab = el(`tab-${key}`);
    if (tab) {
      tab.setAttribute("aria-selected", String(key === name));
      tab.tabIndex = key === name ? 0 : -1;
    }
  }
  el("quantities").hidden = el("legend").hidden = name !== "circuit";
  if (name === "table") showTable(openAt);
  if (name === "nodes") showNodes(goTo);
}

function openAt(thing, index) {
  openTab("circuit");
  choose(thing, index, true);
}

function setUpTabs() {
  const { about } = state;
  const names = Object.keys(TABS).filter(
    (name) => (name !== "picture" || about.layers) && (name !== "nodes" || about.nodes > 60),
  );
  if (!live) TABS.picture = "Picture";
  el("tabs").replaceChildren(
    ...names.map((name) =>
      made("button", {
        type: "button",
        id: `tab-${name}`,
        role: "tab",
        textContent: TABS[name],
        "aria-controls": `panel-${name}`,
        onclick: () => openTab(name),
      }),
    ),
  );
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
  else if (event.key === "0") {
    graph.moved = false;
    graph.fit();
  } else if (event.key === "Enter" && live && state.chosen?.thing === "edge") {
    el("edit-value").focus();
    el("edit-value").select();
  } else return;
  event.preventDefault();
});

async function goBy(thing, index) {
  if (await choose(thing, index, true)) tip.show(words(thing, index), ...graph.place(thing, index));
}
el("graph").addEventListener("blur", () => tip.hide());
el("zoom-in").addEventListener("click", () => graph.zoom(1.25));
el("zoom-out").addEventListener("click", () => graph.zoom(0.8));
el("fit").addEventListener("click", () => {
  graph.moved = false;
  graph.fit();
});
for (const radio of document.querySelectorAll("input[name=quantity]")) {
  radio.addEventListener("change", () => {
    state.quantity = radio.value;
    recolour();
  });
}
el("log").addEventListener("change", (event) => {
  state.log = event.target.checked;
  recolour();
});

// -- start ---------------------------------------------------------------------------------------------------------

async function start() {
  try {
    state.about = await ask("about");
    state.scene = await ask("scene", { centre: null });
    const { about } = state;
    const kinds = Object.entries(about.elements).map(([kind, n]) => counted(n, KINDS[kind]));
    const total = about.crossbars.reduce((sum, x) => sum + x.conductances, 0);
    const bars = total ? [`${counted(about.crossbars.length, "crossbar")} of ${counted(total, "conductance")}`] : [];
    el("title").textContent = about.title || about.file;
    el("counts").textContent = [about.file, counted(about.nodes, "node"), ...kinds, ...bars].join(" · ");
    if (!live) {
      el("change").replaceChildren(
        made("p", {
          className: "note",
          textContent: "This file shows one solution. To change values: circuitsim view FILE",
        }),
      );
    }
    showScene();
    if (about.layers) {
      picture = new Picture(about.layers, (part) => change(() => part, { trace: true, latest: "inputs" }));
    }
    setUpTabs();
    await change(() => ({}), { trace: true });
    setUpSweeps(change);
  } catch (error) {
    fail(error, false);
  }
}
start();
