// What the page knows: the circuit, what is drawn, the changes and their answer.

import { ask } from "view/ask";
import { el, fail } from "view/dom";

export const state = {
  about: null,
  scene: null,
  centre: null,
  answer: null,
  changes: { values: {}, sweep: null, inputs: null },
  chosen: null,
  vertex: null,
  quantity: "voltage",
  log: false,
  tab: "circuit",
};

let wanted = state.changes; // those of the answer that is shown, and what was changed since
let asked = null; // what waits for the answer that is under way
let busy = false;

// Ask for the equilibrium with other changes; the latest of several wins. `done` is called after each answer.
export async function solve(part, done, trace = false) {
  wanted = { ...wanted, ...part };
  asked = { changes: wanted, trace };
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
      done();
    } catch (error) {
      if (!asked) wanted = state.changes;
      fail(error, state.answer !== null);
    }
    status.classList.remove("busy");
  }
  busy = false;
}
