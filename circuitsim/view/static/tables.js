// All values in tables, and the voltages of all nodes as an image.

import { ask } from "view/ask";
import { KINDS, el, fail, made, tip } from "view/dom";
import { Heat } from "view/heat";
import { withUnit } from "view/scales";
import { cellWords } from "view/selection";
import { state } from "view/state";

const MOST_ROWS = 400; // of a table

// `open(thing, index)`: show it in the circuit.
export function showTable(open) {
  const { scene, answer } = state,
    box = el("panel-table");
  const nodes = scene.vertices.map((v, k) => [v, k]).filter(([v]) => v.kind !== "crossbar" && v.kind !== "ground");
  const cell = (text, number = false) => made("td", { className: number ? "n" : "", textContent: text });
  const link = (text, thing, k) =>
    made("td", {}, made("button", { type: "button", textContent: text, onclick: () => open(thing, k) }));
  const head = (...names) =>
    made("thead", {}, made("tr", {}, ...names.map((n) => made("th", { scope: "col", textContent: n }))));
  const volts = (k) => {
    const x = answer.values.vertices[k];
    return Array.isArray(x) ? x.map((y) => withUnit(y, "V")).join(" ... ") : withUnit(x, "V", 6);
  };
  const left = made(
    "table",
    {},
    made("caption", { textContent: "Nodes" }),
    head("Node", "Voltage"),
    made(
      "tbody",
      {},
      ...nodes.slice(0, MOST_ROWS).map(([v, k]) => made("tr", {}, link(v.label, "vertex", k), cell(volts(k), true))),
    ),
  );
  const right = made(
    "table",
    {},
    made("caption", { textContent: "Elements" }),
    head("Element", "Kind", "Value", "Voltage", "Current", "Power", "Netlist"),
    made(
      "tbody",
      {},
      ...scene.edges.slice(0, MOST_ROWS).map((e, k) => {
        const [v, i, p, value] = answer.values.edges[k];
        return made(
          "tr",
          {},
          link(e.count > 1 ? `${e.name} (${e.count})` : e.name, "edge", k),
          cell(KINDS[e.kind]),
          cell(value === null ? "" : `${e.count > 1 ? "mean " : ""}${withUnit(value, e.unit)}`, true),
          cell(withUnit(v, "V"), true),
          cell(withUnit(i, "A"), true),
          cell(withUnit(p, "W"), true),
          made("td", {}, made("code", { textContent: `${e.at}  ${e.text}` })),
        );
      }),
    ),
  );
  const cut =
    nodes.length > MOST_ROWS || scene.edges.length > MOST_ROWS
      ? [
          made("p", {
            className: "note",
            textContent: `The first ${MOST_ROWS} of ${nodes.length} nodes and ${scene.edges.length} elements.`,
          }),
        ]
      : [];
  box.replaceChildren(...cut, made("div", { className: "row" }, left, right));
}

// `goTo(hit)`: show a node in the circuit.
export async function showNodes(goTo) {
  let found;
  const { answer, changes } = state;
  try {
    found = await ask("nodes", { changes });
  } catch (error) {
    if (state.answer === answer) fail(error);
    return;
  }
  if (state.answer !== answer) return; // which asks again where this is still to be seen
  const heat = new Heat({
    label: "",
    tip,
    size: 620,
    tell: (row, col, value) => cellWords(found, row, col, value),
    pick: async (row, col) => {
      const [tall, wide] = found.blocks;
      try {
        const { name } = await ask("node_at", { number: row * tall * found.width + col * wide });
        await goTo({ name, what: "node", at: name });
      } catch (error) {
        fail(error);
      }
    },
  });
  heat.show({
    ...found,
    label: "Voltages of all nodes in the order of the netlist, row by row; choose one to see it in the circuit",
  });
  el("panel-nodes").replaceChildren(heat.root);
}
