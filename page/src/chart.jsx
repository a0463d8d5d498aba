// Lines over time.

import {useEffect, useRef} from "preact/hooks";
import uPlot from "uplot";

const time = (_, splits) => splits.map((at) => new Date(at * 1000).toISOString().slice(11, splits.length > 1 && splits[1] - splits[0] < 60 ? 19 : 16));
const COLOURS = ["--serverless", "--pool", "--third"];

// `series` are names of columns; `step` joins points by steps, `dashed` are places of bounds.
export function Chart({title, columns, series, labels, step, dashed = []}) {
  const place = useRef();
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const axis = {stroke: style.getPropertyValue("--text"), grid: {stroke: style.getPropertyValue("--line")}, ticks: {stroke: style.getPropertyValue("--line")}};
    const draw = () => new uPlot({
      title, width: Math.max(280, place.current.clientWidth), height: 190, axes: [{...axis, values: time, space: 70}, {...axis, size: 60}],
      scales: {y: {range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1]}},
      series: [{label: "UTC", value: (_, at) => (at ? new Date(at * 1000).toISOString().slice(11, 19) : "–")}, ...labels.map((label, at) => ({
        label, stroke: style.getPropertyValue(COLOURS[dashed.includes(at) ? 0 : at]), width: dashed.includes(at) ? 1 : 1.5, spanGaps: false, points: {show: false},
        dash: dashed.includes(at) ? [4, 4] : undefined, paths: step ? uPlot.paths.stepped({align: 1}) : undefined,
      }))],
    }, [columns.at, ...series.map((name) => columns[name])], place.current);
    let plot = draw();
    const again = () => { plot.destroy(); plot = draw(); };
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", again);
    addEventListener("resize", again);
    return () => {
      plot.destroy();
      dark.removeEventListener("change", again);
      removeEventListener("resize", again);
    };
  }, [columns]);
  return <div class="chart" ref={place} role="img" aria-label={`${title}: ${labels.join(", ")}`} />;
}
