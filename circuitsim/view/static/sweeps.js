// The points of .dc cards, and curves over them.

import { ask, live } from "view/ask";
import { curves } from "view/charts";
import { el, made } from "view/dom";
import { withUnit } from "view/scales";
import { state } from "view/state";

let change = null; // what a new point does
let current = null; // the card whose sliders are shown
let shown = null; // its curve, once it is known

// `changed(edit, options)`: solve after this edit.
export function setUpSweeps(changed) {
  change = changed;
  const { sweeps } = state.about;
  el("sweeps").hidden = sweeps.length === 0;
  if (sweeps.length > 1) {
    const choice = made(
      "select",
      { onchange: () => showSweep(sweeps[Number(choice.value)]) },
      ...sweeps.map((sweep, k) => made("option", { value: k, textContent: sweep.line })),
    );
    el("sweeps-head").after(made("label", {}, "Card ", choice));
  }
  if (sweeps.length) showSweep(sweeps[0]);
}

// Sliders for the points of a .dc card, and the curve of a node.
function showSweep(sweep) {
  current = sweep;
  const point = sweep.axes.map(() => 0);
  const axes = sweep.axes.map((axis, k) => {
    const said = made("output", { textContent: `${axis.name}: as in the netlist` });
    const input = made("input", {
      type: "range",
      min: 0,
      max: axis.points.length - 1,
      step: 1,
      value: 0,
      id: `axis-${k}`,
      disabled: !live,
    });
    input.addEventListener("input", () => {
      point[k] = Number(input.value);
      sweep.axes.forEach((other, n) => sayPoint(n, `${other.name} = ${withUnit(other.points[point[n]], other.unit)}`));
      const to = { card: sweep.card, point: [...point] };
      change(async ({ values }) => ({ sweep: to, values: await untouched(values, sweep) }), { latest: "sweep" });
    });
    return made("div", {}, made("label", { htmlFor: `axis-${k}` }, said), input);
  });
  const nodes = state.scene.vertices.filter((v) => v.kind === "node").map((v) => v.label);
  const choice = made(
    "select",
    { onchange: () => drawCurve(sweep, choice.value) },
    ...nodes.slice(0, 200).map((n) => made("option", { value: n, textContent: n })),
  );
  el("sweep-axes").replaceChildren(
    made("p", { className: "line", textContent: sweep.line }),
    ...axes,
    made("label", {}, "Voltage of ", choice, " over the sweep, without other changes"),
  );
  choice.value = state.about.outputs.find((n) => nodes.includes(n)) ?? nodes[nodes.length - 1];
  if (choice.value) drawCurve(sweep, choice.value);
}

// Changed values but those that the points of a sweep change too: the last change wins.
async function untouched(values, sweep) {
  const names = Object.keys(values);
  const touched = names.length ? await ask("touched", { card: sweep.card, names }) : [];
  return Object.fromEntries(Object.entries(values).filter(([name]) => !touched.includes(name)));
}

function sayPoint(k, text) {
  const input = el(`axis-${k}`);
  input.previousSibling.firstChild.textContent = text;
  input.setAttribute("aria-valuetext", text);
}

async function drawCurve(sweep, node) {
  const wanted = { sweep, node, curve: null };
  shown = wanted;
  try {
    wanted.curve = await ask("curve", { card: sweep.card, node });
    if (shown === wanted) markCurve();
  } catch (error) {
    if (shown !== wanted) return;
    el("curve").replaceChildren(made("p", { className: "note", textContent: error.message }));
  }
}

// Point out, in the curve, where the answer is.
export function markCurve() {
  if (!shown?.curve) return;
  const { sweep, node, curve } = shown,
    axis = sweep.axes[0];
  const point = state.changes.sweep?.point ?? []; // of its axes but the first: the curve that is thicker
  let [now, size] = [0, 1];
  sweep.axes.slice(1).forEach((other, k) => {
    now += size * (point[k + 1] ?? NaN);
    size *= other.points.length;
  });
  curves(el("curve"), {
    x: curve.x,
    lines: curve.lines.map((values, k) => ({ label: `${k}`, values, wide: k === now && curve.lines.length > 1 })),
    mark: point.length ? axis.points[point[0]] : null,
    xLabel: axis.unit ? `${axis.name} (${axis.unit})` : axis.name,
    yLabel: `v(${node})`,
    pick: live
      ? (k) => {
          const input = el("axis-0");
          input.value = k;
          input.dispatchEvent(new Event("input"));
        }
      : null,
  });
}

// Sliders as they were at first.
export function resetSweeps() {
  if (current) showSweep(current);
}
