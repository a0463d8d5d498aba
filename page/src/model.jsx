// One model: its last day, where its requests go and why, its replicas, and a request typed in.

import {useEffect, useMemo, useState} from "preact/hooks";
import {Chart} from "./chart.jsx";
import {ask, rates, state} from "./feed.js";
import {Flow} from "./flow.jsx";
import {count, number, percent, usd, words} from "./format.js";
import {Figure, Table} from "./table.jsx";
import {Canaries, Shadows} from "./trials.jsx";

const HOUR = [
  {title: "requests/s", series: ["requests_per_s", "pool_per_s", "spills_per_s"], labels: ["all", "on replicas", "spilled over"]},
  {title: "milliseconds", series: ["p50_ms", "p99_ms"], labels: ["p50", "p99"]},
  {title: "replicas ready", series: ["replicas"], labels: ["replicas"], step: true},
  {title: "cold starts/s", series: ["cold_starts_per_s"], labels: ["cold starts"]},
  {title: "USD/h by part", series: ["usd_serverless_per_h", "usd_warm_busy_per_h", "usd_warm_idle_per_h"], labels: ["functions", "replicas at work", "replicas idle"]},
];
const DAY = [
  {title: "requests/s", series: ["requests_per_s"], labels: ["all"]},
  {title: "p99, milliseconds", series: ["p99_ms"], labels: ["p99"]},
  {title: "replicas ready", series: ["replicas"], labels: ["replicas"], step: true},
  {title: "USD/h", series: ["usd_per_h"], labels: ["USD/h"]},
];

function History({name}) {
  const [history, show] = useState(null);
  const [isDay, choose] = useState(false);
  useEffect(() => {
    const read = async () => show(await ask(`/v1/history?model=${encodeURIComponent(name)}`));
    read();
    const timer = setInterval(read, 10_000);
    return () => clearInterval(timer);
  }, [name]);
  const columns = useMemo(() => {
    if (!history?.at) return null;
    const from = isDay ? 0 : history.at.findIndex((at) => at > history.at.at(-1) - 3600);
    return Object.fromEntries(Object.entries(history).map(([column, values]) => [column, values.slice(Math.max(0, from))]));
  }, [history, isDay]);
  if (!(columns?.at.length > 1)) return <p class="quiet">The first points come within half a minute.</p>;
  return (
    <section>
      <label><input type="checkbox" checked={isDay} onChange={(event) => choose(event.target.checked)} /> the last day instead of the last hour</label>
      <div class="charts">{(isDay ? DAY : HOUR).map((chart) => <Chart key={`${chart.title} ${isDay}`} columns={columns} {...chart} />)}</div>
    </section>
  );
}

const ENDPOINTS = [
  {name: "replica", text: true, value: (row) => row.id},
  {name: "address", text: true, value: (row) => row.address ?? ""},
  {name: "state", text: true, value: (row) => row.state, shown: (row) => <span class={row.state === "ready" ? "" : "bad"}>{words(row.state)}</span>},
  {name: "busy", value: (row) => row.in_flight, shown: (row) => `${row.in_flight}/${row.slots}`},
  {name: "p50 ms", value: (row) => row.p50_ms, shown: (row) => number(row.p50_ms)},
  {name: "p99 ms", value: (row) => row.p99_ms, shown: (row) => number(row.p99_ms)},
  {name: "errors", value: (row) => row.errors},
  {name: "set aside", value: (row) => row.set_aside},
  {name: "why", text: true, value: (row) => row.why_aside ?? ""},
];
const COUNTS = [
  {name: "which", text: true, value: (row) => row.key, shown: (row) => words(row.key)},
  {name: "last minute", value: (row) => row.recent, shown: (row) => (row.recent === null ? "" : count(row.recent))},
  {name: "since the start", value: (row) => row.count, shown: (row) => count(row.count)},
];

export function Model({name}) {
  const model = state.models.get(name);
  if (!model) return <p>There is no model {name}.</p>;
  const rate = rates(name), {recent, slo, counters, serverless} = model;
  const counted = (counts, latest) => Object.entries(counts).map(([key, value]) => ({key, count: value, recent: latest ? latest[key] ?? 0 : null}));
  const aims = sumOf(recent.objective), isLate = recent.p99_ms !== null && recent.p99_ms > slo.latency_ms;
  const own = (trials) => (trials ?? []).filter((trial) => trial.model === name || trial.canary_model === name);
  return (
    <>
      <h2>{name}</h2>
      <dl class="figures">
        <Figure label="requests/s" value={number(rate.requests)} />
        <Figure label={`p50 / p99 of the last minute, ms (objective ${number(slo.latency_ms, 0)})`} value={recent.p99_ms === null ? "–" : `${number(recent.p50_ms)} / ${number(recent.p99_ms)}`} bad={isLate} />
        <Figure label={`objective met (${number(slo.percentile, 1)} % wanted)`} value={aims ? percent((recent.objective.met ?? 0) / aims, 1) : "–"} bad={aims > 0 && (100 * (recent.objective.met ?? 0)) / aims < slo.percentile} />
        <Figure label="load, replicas" value={number(model.load_replicas, 2)} />
        <Figure label="ready / wanted / billed" value={`${model.replicas_ready} / ${model.replicas_wanted} / ${model.replicas_billed}`} />
        <Figure label="because" value={words(model.sizing_reason)} />
        <Figure label="next replica: to its start" value={percent(counters.start) || "–"} />
        <Figure label="last replica: to its end" value={percent(counters.stop) || "–"} />
        <Figure label="queued" value={model.queued} />
        {serverless && <Figure label="calls" value={`${serverless.in_flight}/${serverless.max_concurrency}`} bad={serverless.breaker_open} />}
        {serverless && <Figure label="P(cold)" value={number(serverless.p_cold, 3)} />}
        {Object.entries(model.cost_usd).map(([part, value]) => <Figure key={part} label={`USD ${words(part)}`} value={usd(value)} />)}
        {Object.entries(model.alternatives_usd).map(([way, value]) => <Figure key={way} label={`USD, had it been ${words(way)}`} value={usd(value)} />)}
      </dl>
      <section><h3>Where it goes, and why</h3><Flow decisions={rate.decisions} unit="/s" /></section>
      <History name={name} />
      <section><Table caption="Replicas" columns={ENDPOINTS} rows={model.endpoints.map((one) => ({...one, key: one.id}))} first="replica" descends={false} /></section>
      <div class="side">
        <section><Table caption="Reasons" first="since the start" rows={counted(model.reasons, recent.reasons)} columns={COUNTS} /></section>
        <section><Table caption="Rules that matched, since the configuration was loaded" first="since the start" rows={counted(model.rules)} columns={COUNTS.filter((column) => column.name !== "last minute")} /></section>
        <section><Table caption="Objective" first="last minute" rows={counted(recent.objective, recent.objective)} columns={COUNTS.filter((column) => column.name !== "since the start")} /></section>
      </div>
      <Canaries canaries={own(state.rest.canaries)} />
      <Shadows shadows={own(state.rest.shadows)} />
      <Explain name={name} />
    </>
  );
}

const sumOf = (counts) => Object.values(counts).reduce((all, value) => all + value, 0);

function Explain({name}) {
  const [answer, show] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    const asked = Object.fromEntries([...new FormData(event.target)].filter(([, value]) => value !== ""));
    const question = {model: name, payload_bytes: Number(asked.bytes ?? 0)};
    if (asked.deadline) question.deadline_ms = Number(asked.deadline);
    if (asked.tenant) question.tenant = asked.tenant;
    show(await ask("/v1/explain", question));
  };
  return (
    <section>
      <h3>Where would a request go?</h3>
      <form onSubmit={submit}>
        <label>bytes <input name="bytes" type="number" min="0" value="1000" required /></label>
        <label>deadline, ms <input name="deadline" type="number" min="1" /></label>
        <label>tenant <input name="tenant" /></label>
        <button>explain</button>
      </form>
      {answer && (
        <div role="status">
          <p>{answer.error ? `refused: ${answer.error}` : <><b>{answer.backend}</b>, because {words(answer.reason)} (rule {answer.rule}){answer.held && ", held until there is capacity"}</>}</p>
          <ol>{(answer.trace ?? []).map((step, at) => <li key={at}><b>{step.stage}</b> {step.subject}: {step.verdict}</li>)}</ol>
        </div>
      )}
    </section>
  );
}
