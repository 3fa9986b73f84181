// Numbers with units, and colours for numbers: ramps that colour-blind readers can tell apart.

const PREFIXES = ["a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T"];
const SEQUENTIAL = [
  "#440154",
  "#482878",
  "#3e4989",
  "#31688e",
  "#26828e",
  "#1f9e89",
  "#35b779",
  "#6ece58",
  "#b5de2b",
  "#fde725",
]; // viridis
const LINES = [...SEQUENTIAL].reverse();
const DIVERGING = ["#08306b", "#2171b5", "#6baed6", "#c9d4de", "#dedede", "#ecd0ae", "#f0a04b", "#c8590f", "#7f2704"];
const DECADES = 6; // of a logarithmic scale
export const NONE = "#ffffff";

// A number with four digits and a unit: 6.667 V, -3.333 mA.
export function withUnit(x, unit, digits = 4) {
  if (x === null || x === undefined) return "unknown";
  if (x === 0) return `0 ${unit}`.trim();
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.abs(x)) / 3 + 1e-12), -6), 4);
  const scaled = Number((x / 1000 ** power).toPrecision(digits));
  return unit && !unit.includes("/")
    ? `${scaled} ${PREFIXES[power + 6]}${unit}`
    : `${Number(x.toPrecision(digits))} ${unit}`.trim();
}

// A number as SPICE reads it back, for the field that edits it.
export function plain(x) {
  return x === null || x === undefined ? "" : String(Number(x.toPrecision(12)));
}

function mixed(ramp, t) {
  const at = Math.min(Math.max(t, 0), 1) * (ramp.length - 1);
  const k = Math.min(Math.floor(at), ramp.length - 2);
  const part = (hex, n) => parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16);
  const parts = [0, 1, 2].map((n) =>
    Math.round(part(ramp[k], n) + (at - k) * (part(ramp[k + 1], n) - part(ramp[k], n))),
  );
  return `rgb(${parts.join(",")})`;
}

// A scale over some numbers: {colour(x), low, high, unit}. Both signs: blue below 0, orange above, grey at 0.
// `lines`: for lines on white, the larger the darker.
export function scaleOf(numbers, unit, { log = false, symmetric = false, lines = false } = {}) {
  let low = Infinity,
    high = -Infinity;
  for (const x of numbers) {
    if (x === null || x === undefined || Number.isNaN(x)) continue;
    if (x < low) low = x;
    if (x > high) high = x;
  }
  if (low > high) low = high = 0;
  const both = symmetric || (low < 0 && high > 0);
  const top = Math.max(Math.abs(low), Math.abs(high));
  if (both) {
    low = -top;
    high = top;
  }
  const bend = (x) => Math.sign(x) * Math.max(0, 1 + Math.log10(Math.max(Math.abs(x) / (top || 1), 1e-300)) / DECADES);
  const place = log ? bend : (x) => x;
  const [from, to] = [place(low), place(high)];
  const ramp = both ? DIVERGING : lines ? LINES : SEQUENTIAL;
  const colour = (x) =>
    x === null || x === undefined ? NONE : mixed(ramp, to > from ? (place(x) - from) / (to - from) : 0.5);
  return { low, high, unit, log, colour, at: (t) => mixed(ramp, t), middle: both ? 0 : log ? null : (low + high) / 2 };
}

// A bar of colours with its ends in words.
export function showScale(box, scale, name) {
  const canvas = document.createElement("canvas");
  canvas.width = 160;
  canvas.height = 1;
  const pen = canvas.getContext("2d");
  for (let k = 0; k < 160; k += 1) {
    pen.fillStyle = scale.at(k / 159);
    pen.fillRect(k, 0, 1, 1);
  }
  canvas.setAttribute("role", "img");
  const [low, high] = [withUnit(scale.low, scale.unit), withUnit(scale.high, scale.unit)];
  canvas.setAttribute("aria-label", `${name}, from ${low} to ${high}${scale.log ? ", logarithmic" : ""}`);
  box.replaceChildren(`${name} ${low}`, canvas, high + (scale.log ? " (log)" : ""));
}
