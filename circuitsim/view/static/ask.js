// What the page asks: of its server, or of the file that it is.

import { el } from "view/dom";

const embedded = JSON.parse(el("answers").textContent);
export const live = embedded === null;

// An answer of the server, or of the file itself. Throws an Error with the server's words.
export async function ask(what, body = {}) {
  if (!live) return answerInside(what, body);
  let response;
  try {
    response = await fetch(`api/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("circuitsim view has ended: start it again, and open the address that it prints");
  }
  const answer = await response.json();
  if (answer.error !== undefined) throw new Error(answer.error);
  return answer;
}

function answerInside(what, body) {
  const keys = {
    crossbar: ["number", "quantity"],
    group: ["number"],
    unit: ["layer", "unit"],
    curve: ["card", "node"],
  };
  if (what === "find") return findInside(body.text.trim().toLowerCase());
  if (what === "node_at") return { name: embedded.nodes.names[body.number] };
  const key = [what, ...(keys[what] ?? []).map((name) => body[name])].join("/");
  if (!(key in embedded)) throw new Error("this file does not contain that; circuitsim view FILE shows it");
  if (embedded[key].error !== undefined) throw new Error(embedded[key].error);
  return embedded[key];
}

function findInside(key) {
  const { vertices, edges } = embedded.scene;
  const names = [
    ...vertices.filter((v) => v.kind !== "ground").map((v) => ({ name: v.label, what: v.kind, at: v.label })),
    ...edges.map((e) => ({ name: e.name, what: e.kind, at: e.name })),
  ];
  return key ? names.filter((n) => n.name.toLowerCase().includes(key)).slice(0, 20) : [];
}
