// What is told about a vertex or an element: a few words beside the pointer, or all of it in the panel.

import { ask, live } from "view/ask";
import { KINDS, el, facts, fail, made, tip } from "view/dom";
import { Heat } from "view/heat";
import { plain, withUnit } from "view/scales";
import { state } from "view/state";

export function words(thing, index) {
  const { scene, answer } = state;
  if (thing === "edge") {
    const e = scene.edges[index],
      [v, i, p] = answer.values.edges[index];
    const many = e.count > 1 ? `${e.count} members; mean voltage, sums of currents and powers\n` : "";
    const numbers = `${withUnit(v, "V")}, ${withUnit(i, "A")}, ${withUnit(p, "W")}`;
    return `${e.name}: ${KINDS[e.kind]}\n${many}${numbers}\n${e.at}  ${e.text}`;
  }
  const v = scene.vertices[index],
    volts = answer.values.vertices[index];
  if (v.kind === "crossbar")
    return `crossbar ${v.label.replace("\n", ", ")}: absorbs ${withUnit(volts, "W")}\nclick to see its conductances`;
  if (v.kind === "group")
    return `${v.label}: ${v.count} nodes\n${volts.map((x) => withUnit(x, "V")).join(" ... ")} (lowest, mean, highest)`;
  const own = scene.edges.flatMap((e, k) => (e.a === index || e.b === index ? [k] : []));
  const lines = own.slice(0, 6).map((k) => {
    const e = scene.edges[k];
    return `${e.name} ${withUnit(answer.values.edges[k][1], "A")}   ${e.at}  ${e.text}`;
  });
  const more = own.length > 6 ? [`and ${own.length - 6} more`] : [];
  return [v.kind === "ground" ? "ground: 0 V" : `node ${v.label}: ${withUnit(volts, "V", 6)}`, ...lines, ...more].join(
    "\n",
  );
}

// Tell what is chosen; `act` has choose(thing, index, focus) and centreOn(name).
export async function showSelection(act) {
  const box = el("selection");
  if (!state.chosen) {
    box.replaceChildren(made("p", { className: "note", textContent: "Click a node, an element or a crossbar." }));
    return;
  }
  const { thing, index } = state.chosen;
  const { scene, answer } = state;
  if (thing === "edge") {
    const e = scene.edges[index],
      [v, i, p, value] = answer.values.edges[index];
    const ends = [e.a, e.b].map((k) => scene.vertices[k].label).join(" → ");
    const pairs = [
      ["Kind", KINDS[e.kind]],
      ["From → to", ends],
      ["Voltage", withUnit(v, "V", 6)],
      ["Current", withUnit(i, "A", 6)],
      ["Power absorbed", withUnit(p, "W", 6)],
    ];
    if (e.unit && value !== null) pairs.splice(2, 0, ["Value", withUnit(value, e.unit, 6)]);
    if (e.count > 1) pairs.unshift(["Members", `${e.count}: mean voltage and value, sum of current and power`]);
    box.replaceChildren(
      made("h3", { textContent: e.name }),
      facts(...pairs),
      made("p", { className: "line", textContent: `${e.at}  ${e.text}` }),
    );
    if (e.unit && live) {
      el("edit-name").value = e.name;
      el("edit-value").value = plain(value);
      el("edit-unit").textContent = `(${e.unit})`;
    }
    return;
  }
  const v = scene.vertices[index];
  if (v.kind === "crossbar") {
    await showCrossbar(box, v.key);
    return;
  }
  if (v.kind === "group") {
    await showGroup(box, v);
    return;
  }
  const own = scene.edges.flatMap((e, k) => (e.a === index || e.b === index ? [k] : []));
  const rows = own.slice(0, 40).map((k) =>
    made(
      "tr",
      {},
      made(
        "td",
        {},
        made("button", {
          type: "button",
          textContent: scene.edges[k].name,
          onclick: () => act.choose("edge", k, true),
        }),
      ),
      made("td", { className: "n", textContent: withUnit(answer.values.edges[k][1], "A") }),
      made("td", { className: "n", textContent: withUnit(answer.values.edges[k][2], "W") }),
    ),
  );
  box.replaceChildren(
    made("h3", { textContent: v.kind === "ground" ? "ground" : `node ${v.label}` }),
    facts(["Voltage", withUnit(answer.values.vertices[index], "V", 6)], ["Elements", `${own.length + v.hidden}`]),
    ...(own.length ? [made("table", {}, made("tbody", {}, ...rows))] : []),
  );
  if (v.hidden > 0 && live && !state.scene.all_nodes)
    box.append(
      made("button", {
        type: "button",
        className: "plain",
        textContent: `Draw the part near ${v.label}`,
        onclick: () => act.centreOn(v.label),
      }),
    );
}

// A test for after a question: whether another choice, or another answer, has come meanwhile.
function outdated() {
  const { chosen, answer } = state;
  return () => state.chosen !== chosen || state.answer !== answer;
}

let crossbarQuantity = "conductance";
async function showCrossbar(box, number) {
  let found;
  const about = state.about.crossbars[number],
    quantity = crossbarQuantity,
    passed = outdated();
  const late = () => passed() || quantity !== crossbarQuantity;
  const head = made("h3", { textContent: `crossbar ${about.name}` });
  try {
    found = await ask("crossbar", { changes: state.changes, number, quantity });
  } catch (error) {
    if (late()) return;
    box.replaceChildren(head, made("p", { className: "note", textContent: error.message }));
    return;
  }
  if (late()) return;
  const [tall, wide] = found.blocks;
  const single = tall === 1 && wide === 1;
  const name = (row, col) =>
    `${found.name}[${found.first[0] + row * found.step[0]}][${found.first[1] + col * found.step[1]}]`;
  const heat = new Heat({
    label: "",
    tip,
    size: 330,
    tell: (row, col, value) =>
      single
        ? `${name(row, col)}\n${crossbarQuantity} ${value}`
        : `rows from ${row * tall}, columns from ${col * wide}: mean ${crossbarQuantity} ${value}`,
    pick: (row, col) => {
      if (!single || !live) return;
      el("edit-name").value = name(row, col);
      el("edit-value").value = crossbarQuantity === "conductance" ? plain(found.values[row * found.cols + col]) : "";
      el("edit-unit").textContent = "(S)";
      el("edit-value").focus();
    },
  });
  heat.show({
    ...found,
    label: `${crossbarQuantity}: rows down, columns across${single ? "" : `; means of ${tall} × ${wide}`}`,
  });
  const choice = made(
    "select",
    {
      onchange: (event) => {
        crossbarQuantity = event.target.value;
        showCrossbar(box, number);
      },
    },
    ...["conductance", "current", "power"].map((q) =>
      made("option", { value: q, textContent: q, selected: q === crossbarQuantity }),
    ),
  );
  box.replaceChildren(
    head,
    facts(
      ["Size", `${about.rows} rows × ${about.cols} columns`],
      [
        "Power absorbed",
        withUnit(
          state.answer.values.vertices[
            state.scene.vertices.findIndex((v) => v.kind === "crossbar" && v.key === number)
          ],
          "W",
          6,
        ),
      ],
      ["Conductances", `${about.conductances.toLocaleString("en")} that are not 0`],
    ),
    made("label", {}, "Show ", choice),
    heat.root,
  );
}

async function showGroup(box, vertex) {
  let found;
  const late = outdated();
  try {
    found = await ask("group", { changes: state.changes, number: vertex.key });
  } catch (error) {
    if (!late()) fail(error);
    return;
  }
  if (late()) return;
  const heat = new Heat({
    label: `voltages of ${vertex.label}`,
    tip,
    size: 330,
    tell: (row, col, value) => cellWords(found, row, col, value),
  });
  heat.show(found);
  const member = found.names?.indexOf(state.member) ?? -1; // what was looked for
  const own =
    member >= 0 && found.blocks[0] * found.blocks[1] === 1
      ? [[state.member, withUnit(found.values[member], "V", 6)]]
      : [];
  box.replaceChildren(
    made("h3", { textContent: vertex.label }),
    facts(["Nodes", `${vertex.count}`], ...own),
    heat.root,
  );
}

// The words for a cell of an image of nodes.
export function cellWords(found, row, col, value) {
  const [tall, wide] = found.blocks,
    k = row * tall * found.width + col * wide;
  return tall * wide > 1
    ? `mean of ${tall} × ${wide} nodes from number ${k}: ${value}`
    : `${found.names ? found.names[k] : `node ${k}`}: ${value}`;
}
