// All models: where their requests go, what they cost, and what else they might have cost.

import {useState} from "preact/hooks";
import {rates, state} from "./feed.js";
import {Flow} from "./flow.jsx";
import {mix, number, percent, sum, usd, words} from "./format.js";
import {Figure, Table} from "./table.jsx";
import {Canaries, Shadows} from "./trials.jsx";

const instead = (row, way) => row.model.alternatives_usd[way] === undefined ? null : row.rate.insteadPerHour[way] ?? 0;
const shownInstead = (row, way) => (instead(row, way) === null ? "" : `${way === "always_serverless" && row.model.captive_requests ? "≥ " : ""}${usd(instead(row, way))}`);
const isLate = ({recent, slo}) => recent.p99_ms !== null && recent.p99_ms > slo.latency_ms;

const MODELS = [
  {name: "model", text: true, value: (row) => row.model.name, shown: (row) => <a href={`#model/${encodeURIComponent(row.model.name)}`}>{row.model.name}</a>},
  {name: "requests/s", value: (row) => row.rate.requests, shown: (row) => number(row.rate.requests)},
  {name: "p99 / objective, ms", told: "of the last minute", value: (row) => row.model.recent.p99_ms, shown: (row) => <span class={isLate(row.model) ? "bad" : ""}>{row.model.recent.p99_ms === null ? "–" : number(row.model.recent.p99_ms, 0)} / {number(row.model.slo.latency_ms, 0)}</span>},
  {name: "USD/h", value: (row) => row.rate.usdPerHour, shown: (row) => usd(row.rate.usdPerHour)},
  {name: "functions only", told: "USD/h of the same requests, had each been a call", value: (row) => instead(row, "always_serverless"), shown: (row) => shownInstead(row, "always_serverless")},
  {name: "replicas only", told: "USD/h of replicas for the last day's highest load", value: (row) => instead(row, "always_warm"), shown: (row) => shownInstead(row, "always_warm")},
  {name: "load", told: "in replicas", value: (row) => row.model.load_replicas, shown: (row) => number(row.model.load_replicas, 2)},
  {name: "ready / wanted / billed", value: (row) => row.model.replicas_ready, shown: (row) => `${row.model.replicas_ready} / ${row.model.replicas_wanted} / ${row.model.replicas_billed}`},
  {name: "next one", told: "how far the sizing's counter is on the way to the next replica's start", value: (row) => row.model.counters.start, shown: (row) => percent(row.model.counters.start)},
  {name: "because", text: true, value: (row) => words(row.model.sizing_reason)},
  {name: "reasons", told: "of the last minute", text: true, value: (row) => mix(row.model.recent.reasons)},
  {name: "pool %", value: (row) => share(row.model), shown: (row) => number(share(row.model), 0)},
  {name: "queued", value: (row) => row.model.queued},
  {name: "calls", value: (row) => row.model.serverless?.in_flight ?? -1, shown: (row) => row.model.serverless ? `${row.model.serverless.in_flight}/${row.model.serverless.max_concurrency}` : ""},
  {name: "cold", value: (row) => row.model.serverless?.cold_calls ?? -1, shown: (row) => row.model.serverless?.cold_calls ?? ""},
  {name: "USD", told: "since the start", value: (row) => sum(row.model.cost_usd), shown: (row) => usd(sum(row.model.cost_usd))},
];

function share(model) {
  const all = sum(model.split);
  return all ? (100 * model.split.pool) / all : null;
}

const GATEWAYS = [
  {name: "gateway", text: true, value: (row) => row.id, shown: (row) => `${row.id}${row.is_asked ? " (asked)" : ""}`},
  {name: "version", text: true, value: (row) => row.version},
  {name: "since, UTC", text: true, value: (row) => row.started_at, shown: (row) => row.started_at && new Date(row.started_at * 1000).toISOString().slice(0, 19).replace("T", " ")},
  {name: "configuration", text: true, value: (row) => row.config_hash, shown: (row) => row.version ? <span class={row.config_differs ? "bad" : ""}>{row.config_hash.slice(0, 12)}{row.config_differs && " differs"}</span> : <span class="bad">not heard, not in the sums</span>},
  {name: "in flight", value: (row) => row.in_flight},
  {name: "connections", value: (row) => row.connections},
  {name: "models left out", told: "that had no room in its summary", value: (row) => row.models_left_out},
];

function Gateways({known, silent}) {
  const rows = [...known, ...silent.map((id) => ({id}))].map((row) => ({...row, key: row.id}));
  return <section><Table caption={`Sums of ${known.length} gateway processes`} columns={GATEWAYS} rows={rows} first="gateway" descends={false} /></section>;
}

export function Fleet() {
  const [filter, find] = useState("");
  const [dollars, inDollars] = useState(false);
  const all = [...state.models.values()].map((model) => ({key: model.name, model, rate: rates(model.name)}));
  const rows = all.filter((row) => row.model.name.includes(filter));
  const flow = {};
  for (const {rate} of rows) {
    const parts = dollars ? costs(rate) : rate.decisions;
    for (const [key, value] of Object.entries(parts)) flow[key] = (flow[key] ?? 0) + value;
  }
  const total = (value) => rows.reduce((found, row) => found + (value(row) ?? 0), 0);
  const rest = state.rest, late = rows.filter((row) => isLate(row.model)).length;
  return (
    <>
      <dl class="figures">
        <Figure label="requests/s" value={number(total((row) => row.rate.requests))} />
        <Figure label="USD/h" value={usd(total((row) => row.rate.usdPerHour))} />
        <Figure label="… with functions where there are any" value={usd(total((row) => instead(row, "always_serverless") ?? row.rate.usdPerHour))} />
        <Figure label="… with replicas where there are any" value={usd(total((row) => instead(row, "always_warm") ?? row.rate.usdPerHour))} />
        <Figure label="models above their objective" value={late} bad={late > 0} />
        <Figure label="replicas ready" value={total((row) => row.model.replicas_ready)} />
        <Figure label="in flight" value={rest.in_flight} />
        <Figure label="connections" value={rest.connections} />
        <Figure label="shared state" value={rest.shared_state?.degraded ? "not reached" : words(rest.shared_state?.mode ?? "")} bad={rest.shared_state?.degraded} />
        <Figure label="configuration" value={rest.config?.last_error ? "refused" : rest.config?.hash?.slice(0, 12)} bad={rest.config?.last_error} />
      </dl>
      <section>
        <h2>Where it goes, and why</h2>
        <label><input type="checkbox" checked={dollars} onChange={(event) => inDollars(event.target.checked)} /> in dollars an hour</label>
        <Flow decisions={flow} unit={dollars ? "USD/h" : "/s"} />
      </section>
      <section>
        <h2>Models</h2>
        <label>find <input type="search" value={filter} onInput={(event) => find(event.target.value)} /></label>
        <Table caption={`${rows.length} models`} columns={MODELS} rows={rows} first="requests/s" />
      </section>
      {rest.gateways && <Gateways known={rest.gateways} silent={rest.gateways_not_heard} />}
      <Canaries canaries={rest.canaries ?? []} />
      <Shadows shadows={rest.shadows ?? []} />
      {(rest.processes ?? []).length > 0 && (
        <Table caption="Processes" first="number" descends={false} rows={rest.processes.map((one) => ({...one, key: one.number}))}
          columns={["number", "pid", "restarts", "in_flight", "connections"].map((name) => ({name: words(name), value: (row) => row[name]}))} />
      )}
    </>
  );
}

// Dollars flow where their requests did; replicas that stand idle have no request's reason.
function costs(rate) {
  const found = {};
  for (const place of ["serverless", "pool"]) {
    const spent = place === "pool" ? rate.usd.warm_busy : rate.usd.serverless;
    const own = Object.entries(rate.decisions).filter(([key]) => key.startsWith(place));
    const all = own.reduce((total, [, value]) => total + value, 0);
    for (const [key, value] of own) found[key] = all ? ((spent ?? 0) * value) / all : 0;
  }
  if (rate.usd.warm_idle) found["pool/idle"] = rate.usd.warm_idle;
  if (rate.usd.kept_warm) found["serverless/kept_warm"] = rate.usd.kept_warm;
  return found;
}
