// Whether models are still good: drift against their baselines, accuracy by labels, by version.

import {useMemo} from "preact/hooks";
import {Chart} from "./chart.jsx";
import {useDocument} from "./document.js";
import {count, number, percent, words} from "./format.js";
import {Table} from "./table.jsx";

const VERSIONS = [
  {name: "model", text: true, value: (row) => row.model},
  {name: "version", text: true, value: (row) => row.version || "–"},
  {name: "samples", value: (row) => row.samples, shown: (row) => count(row.samples)},
  {name: "baseline", text: true, value: (row) => row.baseline?.source ?? "", shown: (row) => (row.baseline ? `${words(row.baseline.source)}, ${count(row.baseline.samples)} samples` : `learning: ${count(row.learned)} samples`)},
  {name: "drifting", value: (row) => row.drifting.length, shown: (row) => <span class={row.drifting.length ? "bad" : ""}>{row.drifting.length}</span>},
  {name: "largest PSI", value: (row) => Math.max(0, ...row.features.map((one) => one.psi)), shown: (row) => number(Math.max(0, ...row.features.map((one) => one.psi)), 3)},
  {name: "alarms", value: (row) => row.alarms.length},
  {name: "accuracy", text: true, value: (row) => main(row)?.value ?? -1, shown: (row) => <Interval metric={main(row)} />},
  {name: "labels", value: (row) => main(row)?.labels ?? 0, shown: (row) => count(main(row)?.labels)},
];

const main = (version) => version.accuracy.accuracy ?? Object.values(version.accuracy)[0];

function Interval({metric}) {
  if (!metric) return <span class="quiet">no labels</span>;
  return <>{number(metric.value, 3)} <span class="quiet">[{number(metric.low, 3)}, {number(metric.high, 3)}]</span></>;
}

// How often each cell was seen: before in the baseline, now in the last window.
function Shift({baseline, now}) {
  const names = [...new Set([...Object.keys(baseline), ...Object.keys(now)])].slice(0, 12);
  const most = Math.max(0.01, ...names.map((name) => Math.max(baseline[name] ?? 0, now[name] ?? 0)));
  const told = names.map((name) => `${name}: ${percent(baseline[name] ?? 0)} before, ${percent(now[name] ?? 0)} now`).join("; ");
  return (
    <svg class="shift" viewBox={`0 0 ${names.length * 12} 26`} role="img" aria-label={told}>
      <title>{told}</title>
      {names.map((name, at) => (
        <g key={name}>
          <rect class="before" x={at * 12} y={25 - (24 * (baseline[name] ?? 0)) / most} width="5" height={(24 * (baseline[name] ?? 0)) / most} />
          <rect class="now" x={at * 12 + 5} y={25 - (24 * (now[name] ?? 0)) / most} width="5" height={(24 * (now[name] ?? 0)) / most} />
        </g>
      ))}
    </svg>
  );
}

function surest({tests}) {
  const [first] = Object.entries(tests).sort((a, b) => a[1].p - b[1].p);
  return first ? `${words(first[0])} ${number(first[1].statistic, 3)} (p ${first[1].p.toPrecision(2)})` : "";
}

const FEATURES = [
  {name: "feature", text: true, value: (row) => row.name, shown: (row) => <span class={row.isDrifting ? "bad" : ""}>{row.name}</span>},
  {name: "PSI", value: (row) => row.psi, shown: (row) => number(row.psi, 3)},
  {name: "before, now", text: true, value: (row) => row.psi, shown: (row) => <Shift baseline={row.baseline} now={row.now} />},
  {name: "surest test", text: true, value: (row) => surest(row)},
];
const ACCURACY = [
  {name: "measure", text: true, value: (row) => row.measure, shown: (row) => words(row.measure)},
  {name: "side", text: true, value: (row) => row.side},
  {name: "value", text: true, value: (row) => row.value, shown: (row) => <Interval metric={row} />},
  {name: "labels", value: (row) => row.labels, shown: (row) => count(row.labels)},
];

function Version({model, version}) {
  const columns = useMemo(() => {
    const hours = version.by_hour.filter((hour) => hour.value !== undefined);
    return {at: hours.map((hour) => Date.parse(hour.from) / 1000), ...Object.fromEntries(["value", "low", "high"].map((name) => [name, hours.map((hour) => hour[name])]))};
  }, [version]);
  const measures = Object.entries(version.by_side).flatMap(([side, found]) => Object.entries(found).map(([name, metric]) => ({key: name, side, ...metric})));
  return (
    <section>
      <h3>{model}{version.version && `, version ${version.version}`}</h3>
      {version.alarms.length > 0 && <ul class="alarms">{version.alarms.slice(0, 6).map((alarm) => <li key={`${alarm.at} ${alarm.feature}`}><time>{alarm.at.slice(0, 19).replace("T", " ")}</time> {alarm.text}</li>)}</ul>}
      <div class="side">
        {version.features.length > 0 && <Table caption="Against the baseline, last window" columns={FEATURES} first="PSI" rows={version.features.map((one) => ({...one, key: one.name, isDrifting: version.drifting.includes(one.name)}))} />}
        {measures.length > 0 && <Table caption="By labels, with 95 % intervals" columns={ACCURACY} first="labels" rows={measures.map((one) => ({...one, measure: one.key, key: `${one.side} ${one.key}`}))} />}
      </div>
      {columns.at.length > 1 && <div class="charts"><Chart title="accuracy by hour, with its interval" columns={columns} series={["value", "low", "high"]} labels={["value", "low", "high"]} dashed={[1, 2]} /></div>}
    </section>
  );
}

export function Quality() {
  const [found] = useDocument("/v1/quality");
  const versions = useMemo(() => (found?.models ?? []).flatMap((model) => model.versions.map((version) => ({key: `${model.name} ${version.version}`, model: model.name, ...version}))), [found]);
  if (!found) return <p class="quiet">Reading.</p>;
  return (
    <>
      <h2>Quality</h2>
      {!versions.length && <p class="quiet">No model is watched, or no sample has come: a model's `quality` says what is.</p>}
      {versions.length > 0 && <section><Table caption={`${versions.length} versions, ${found.gateways} gateways`} columns={VERSIONS} rows={versions} first="drifting" /></section>}
      {(found.canaries ?? []).map((canary) => (
        <p key={canary.rule}>Canary <b>{canary.rule}</b>: {Object.entries(canary.sides).map(([side, one]) => `${side} wrong in ${percent(one.wrong ?? 0, 1)} of ${count(one.labels)} labels`).join("; ")} (p {canary.p.toPrecision(2)})</p>
      ))}
      {versions.map((version) => <Version key={version.key} model={version.model} version={version} />)}
    </>
  );
}
