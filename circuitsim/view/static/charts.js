// Curves, drawn by uPlot.

import uPlot from "uplot";
import { withUnit } from "view/scales";

const COLOURS = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#d55e00",
  "#8a8a00",
  "#000000",
  "#7b5ea7",
  "#999999",
]; // Okabe and Ito's, and more of their kind

// lines: [{label, values}]; mark: an x to point out; pick(index): a click on a point of x.
export function curves(
  box,
  { x, lines, xLabel, yLabel, unit = "V", width = 340, height = 200, mark = null, pick = null },
) {
  box.replaceChildren();
  const axis = (label) => ({
    label,
    labelSize: 18,
    font: "11px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
  });
  const options = {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: false } },
    axes: [axis(xLabel), { ...axis(yLabel), size: 74, values: (_, ticks) => ticks.map((t) => withUnit(t, unit)) }],
    series: [
      {},
      ...lines.map((line, k) => ({
        label: line.label,
        stroke: COLOURS[k % COLOURS.length],
        width: line.wide ? 3 : 1.5,
        points: { show: x.length < 30 },
        dash: k >= COLOURS.length ? [4, 3] : undefined,
      })),
    ],
    hooks: {
      draw: [
        (plot) => {
          if (mark === null) return;
          const at = Math.round(plot.valToPos(mark, "x", true));
          plot.ctx.save();
          plot.ctx.strokeStyle = "#d55e00";
          plot.ctx.setLineDash([5, 4]);
          plot.ctx.lineWidth = 2;
          plot.ctx.beginPath();
          plot.ctx.moveTo(at, plot.bbox.top);
          plot.ctx.lineTo(at, plot.bbox.top + plot.bbox.height);
          plot.ctx.stroke();
          plot.ctx.restore();
        },
      ],
    },
  };
  const plot = new uPlot(options, [x, ...lines.map((line) => line.values)], box);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", `${yLabel} over ${xLabel}`);
  if (pick)
    plot.over.addEventListener("click", () => {
      if (plot.cursor.idx !== null) pick(plot.cursor.idx);
    });
  return plot;
}

export const colourOf = (k) => COLOURS[k % COLOURS.length];
