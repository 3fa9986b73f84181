// Elements of the page, its tip and its error; names and numbers in words. What a netlist says is text, never markup.

export const KINDS = {
  R: "resistor",
  V: "voltage source",
  I: "current source",
  D: "diode",
  L: "inductor",
  C: "capacitor",
  E: "voltage-controlled voltage source",
  F: "current-controlled current source",
  G: "voltage-controlled current source",
  H: "current-controlled voltage source",
  N: "nonlinear resistor",
};

export const el = (id) => document.getElementById(id);

// A new element with properties, or attributes, and children.
export function made(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Names and values as a list.
export function facts(...pairs) {
  return made(
    "dl",
    {},
    ...pairs.flatMap(([name, value]) => [made("dt", { textContent: name }), made("dd", { textContent: value })]),
  );
}

// A number of things.
export function counted(n, thing) {
  return `${n.toLocaleString("en")} ${thing}${n === 1 ? "" : "s"}`;
}

// An error: its size matters, not its digits.
export function small(x, unit = "") {
  return x === null ? "unknown" : `${x === 0 ? "0" : x.toExponential(1)} ${unit}`.trim();
}

export const tip = {
  show(text, x, y, above = false) {
    const box = el("tip");
    box.textContent = text;
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const top = above || y + height + 20 > innerHeight ? y - height - 12 : y + 14;
    box.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
    box.style.top = `${Math.max(4, top)}px`;
  },
  hide() {
    el("tip").hidden = true;
  },
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hide();
});

// Say what went wrong, until the next answer.
export function fail(error, old = true) {
  const box = el("error");
  box.textContent = `${error.message}${old ? "\nWhat is shown is the previous answer." : ""}`;
  box.hidden = false;
}
