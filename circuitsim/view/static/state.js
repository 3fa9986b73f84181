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

let waiting = []; // what is asked for and not under way, in order
let busy = false;

// Ask for the equilibrium after an edit: `edit(changes)` is, or promises, what it makes other of the changes before it.
// What comes while an answer is under way is asked together; where that fails, one by one: only what cannot be is left
// out.
// `centre`: draw what is near this node. `latest`: of what waits under this name the last one counts, as of a slider.
// `done` is called after each answer. The promise is kept when this edit is answered, refused or replaced.
export function solve(edit, done, { trace = false, centre = null, latest = null } = {}) {
  return new Promise((settled) => {
    const replaced = waiting.filter((other) => latest !== null && other.latest === latest);
    for (const other of replaced) other.settled();
    waiting = [...waiting.filter((other) => !replaced.includes(other)), { edit, trace, centre, latest, settled }];
    if (!busy) work(done);
  });
}

async function work(done) {
  busy = true;
  el("status").classList.add("busy");
  try {
    await workOff(done);
  } catch (error) {
    fail(error, state.answer !== null);
  } finally {
    busy = false;
    el("status").classList.remove("busy");
  }
}

async function workOff(done) {
  let refused = null; // an edit's error, which the next answer must not hide
  while (waiting.length) {
    const asked = waiting[0].alone ? waiting.slice(0, 1) : waiting;
    waiting = waiting.slice(asked.length);
    let found = null;
    try {
      found = await answerAfter(asked);
    } catch (error) {
      if (asked.length > 1) {
        waiting = [...asked.map((one) => ({ ...one, alone: true })), ...waiting];
        continue;
      }
      if (asked[0].latest === null) refused = error;
      fail(error, state.answer !== null);
    }
    for (const one of asked) one.settled();
    if (!found) continue;
    Object.assign(state, found);
    if (refused) fail(refused, false);
    else el("error").hidden = true;
    done();
  }
}

// What becomes other in the state: all of it at once, so that what is drawn and its values belong together.
async function answerAfter(asked) {
  let { changes, centre } = state;
  for (const { edit } of asked) changes = { ...changes, ...(await edit(changes)) };
  const trace = asked.some((one) => one.trace);
  const place = asked.findLast((one) => one.centre !== null);
  if (!place) return { changes, answer: await ask("answer", { changes, centre, trace }) };
  const scene = await ask("scene", { centre: place.centre });
  centre = scene.whole ? null : place.centre;
  const answer = await ask("answer", { changes, centre, trace });
  return { changes, centre, scene, answer, chosen: null, vertex: null };
}

// Changed values without that of a name, which is the same name in any case.
export function without(values, name) {
  return Object.fromEntries(Object.entries(values).filter(([other]) => other.toLowerCase() !== name.toLowerCase()));
}

// Changed values with one more, the last: they are applied in order.
export function withValue(values, name, value) {
  return { ...without(values, name), [name]: value };
}
