import {render} from "preact";
import {useEffect, useMemo, useRef, useState} from "preact/hooks";
import uPlot from "uplot";
import {ask, rates, run, state, subscribe, token} from "./feed.js";
import {Flow} from "./flow.jsx";

const number = (value, digits = 1) => (value === null || value === undefined ? "" : value.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits}));
const usd = (value) => (value >= 0.01 ? number(value, 2) : value ? value.toPrecision(2) : "0");
const sum = (counts) => Object.values(counts ?? {}).reduce((all, value) => all + value, 0);
const words = (text) => String(text).replaceAll("_", " ");

function useFeed() {
  const [, redraw] = useState(0);
  useEffect(() => subscribe(() => redraw((count) => count + 1)), []);
}

function useView() {
  const read = () => location.hash.slice(1) || "fleet";
  const [view, show] = useState(read());
  useEffect(() => {
    const changed = () => show(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return view;
}

// A table whose head sorts it, by mouse or keyboard. A column: name, value of a row, how it is shown.
function Table({caption, columns, rows, first, descends = true}) {
  const [by, sort] = useState({column: first, descends});
  const sorted = useMemo(() => {
    const value = columns.find((column) => column.name === by.column).value;
    const factor = by.descends ? -1 : 1;
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * factor;
    return [...rows].sort((a, b) => order(value(a) ?? -1, value(b) ?? -1));
  }, [rows, by]);
  return (
    <div class="scrolls" tabindex="0" role="region" aria-label={caption}>
      <table>
        <caption>{caption}</caption>
        <thead>
          <tr>
            {columns.map(({name, text}) => (
              <th key={name} scope="col" class={text ? "text" : ""} aria-sort={by.column !== name ? "none" : by.descends ? "descending" : "ascending"}>
                <button onClick={() => sort({column: name, descends: by.column === name ? !by.descends : !text})}>{name}</button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={row.key}>
              {columns.map(({name, value, shown, text}) => (
                <td key={name} class={text ? "text" : ""}>{shown ? shown(row) : value(row)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Figure({label, value, bad}) {
  return <div class={bad ? "figure bad" : "figure"}><dt>{label}</dt><dd>{value}</dd></div>;
}

const MODELS = [
  {name: "model", text: true, value: (row) => row.model.name, shown: (row) => <a href={`#model/${encodeURIComponent(row.model.name)}`}>{row.model.name}</a>},
  {name: "requests/s", value: (row) => row.rate.requests, shown: (row) => number(row.rate.requests)},
  {name: "load", value: (row) => row.model.load_replicas, shown: (row) => number(row.model.load_replicas, 2)},
  {name: "ready", value: (row) => row.model.replicas_ready},
  {name: "wanted", value: (row) => row.model.replicas_wanted},
  {name: "billed", value: (row) => row.model.replicas_billed},
  {name: "because", text: true, value: (row) => words(row.model.sizing_reason)},
  {name: "queued", value: (row) => row.model.queued},
  {name: "calls", value: (row) => row.model.serverless?.in_flight ?? -1, shown: (row) => row.model.serverless ? `${row.model.serverless.in_flight}/${row.model.serverless.max_concurrency}` : ""},
  {name: "cold", value: (row) => row.model.serverless?.cold_calls ?? -1, shown: (row) => row.model.serverless?.cold_calls ?? ""},
  {name: "pool %", value: (row) => share(row.model), shown: (row) => number(share(row.model), 0)},
  {name: "USD/h", value: (row) => row.rate.usdPerHour, shown: (row) => usd(row.rate.usdPerHour)},
  {name: "USD", value: (row) => sum(row.model.cost_usd), shown: (row) => usd(sum(row.model.cost_usd))},
];

function share(model) {
  const all = sum(model.split);
  return all ? (100 * model.split.pool) / all : null;
}

function Fleet() {
  const [filter, find] = useState("");
  const [dollars, inDollars] = useState(false);
  const all = [...state.models.values()].map((model) => ({key: model.name, model, rate: rates(model.name)}));
  const rows = all.filter((row) => row.model.name.includes(filter));
  const flow = {};
  for (const {rate} of rows) {
    const parts = dollars ? costs(rate) : rate.decisions;
    for (const [key, value] of Object.entries(parts)) flow[key] = (flow[key] ?? 0) + value;
  }
  const rest = state.rest;
  return (
    <>
      <dl class="figures">
        <Figure label="requests/s" value={number(rows.reduce((all, row) => all + row.rate.requests, 0))} />
        <Figure label="USD/h" value={usd(rows.reduce((all, row) => all + row.rate.usdPerHour, 0))} />
        <Figure label="replicas ready" value={rows.reduce((all, row) => all + row.model.replicas_ready, 0)} />
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
      {(rest.canaries ?? []).length > 0 && <Canaries canaries={rest.canaries} />}
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

function Canaries({canaries}) {
  const [answer, told] = useState("");
  const act = async (rule, action) => told(`${rule}: ${(await ask("/v1/canary", {rule, action})).error ?? words(action)}`);
  return (
    <section>
      <h2>Canaries</h2>
      {canaries.map((canary) => (
        <p key={canary.rule}>
          <b>{canary.rule}</b> of {canary.model} gets {number(canary.share_percent)} % {canary.finding && <span class="bad">rolled back: {canary.finding}</span>}{" "}
          {Object.entries(canary.window).map(([side, found]) => `${side}: ${found.requests} requests, ${found.failed} failed, p95 ${number(found.p95_ms)} ms`).join("; ")}{" "}
          <button onClick={() => act(canary.rule, canary.finding ? "resume" : "roll_back")}>{canary.finding ? "resume" : "roll back"}</button>
        </p>
      ))}
      <p role="status">{answer}</p>
    </section>
  );
}

const CHARTS = [
  {title: "requests/s", series: ["requests_per_s", "pool_per_s"], labels: ["all", "pool"]},
  {title: "milliseconds", series: ["p50_ms", "p99_ms"], labels: ["p50", "p99"]},
  {title: "USD/h", series: ["usd_per_h"], labels: ["USD/h"]},
];

function Chart({title, columns, series, labels}) {
  const place = useRef();
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const axis = {stroke: style.getPropertyValue("--text"), grid: {stroke: style.getPropertyValue("--line")}};
    const plot = new uPlot({
      title, width: Math.max(280, place.current.clientWidth), height: 200, axes: [axis, {...axis, size: 60}],
      series: [{}, ...labels.map((label, at) => ({label, stroke: style.getPropertyValue(at ? "--pool" : "--serverless"), spanGaps: false}))],
    }, [columns.at, ...series.map((name) => columns[name])], place.current);
    return () => plot.destroy();
  }, [columns]);
  return <div class="chart" ref={place} role="img" aria-label={`${title}, ${labels.join(" and ")}, over the last day`} />;
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

function Model({name}) {
  const [history, show] = useState(null);
  const model = state.models.get(name);
  useEffect(() => {
    const read = async () => show(await ask(`/v1/history?model=${encodeURIComponent(name)}`));
    read();
    const timer = setInterval(read, 10_000);
    return () => clearInterval(timer);
  }, [name]);
  if (!model) return <p>There is no model {name}.</p>;
  const rate = rates(name);
  const reasons = Object.entries(model.reasons).map(([reason, count]) => ({key: reason, reason, count, rate: Object.entries(rate.decisions).filter(([key]) => key.endsWith(`/${reason}`)).reduce((all, [, value]) => all + value, 0)}));
  return (
    <>
      <h2>{name}</h2>
      <dl class="figures">
        <Figure label="requests/s" value={number(rate.requests)} />
        <Figure label="load, replicas" value={number(model.load_replicas, 2)} />
        <Figure label="ready / wanted / billed" value={`${model.replicas_ready} / ${model.replicas_wanted} / ${model.replicas_billed}`} />
        <Figure label="because" value={words(model.sizing_reason)} />
        <Figure label="queued" value={model.queued} />
        {model.serverless && <Figure label="calls" value={`${model.serverless.in_flight}/${model.serverless.max_concurrency}`} bad={model.serverless.breaker_open} />}
        {model.serverless && <Figure label="P(cold)" value={number(model.serverless.p_cold, 3)} />}
        {Object.entries(model.cost_usd).map(([part, value]) => <Figure key={part} label={`USD ${words(part)}`} value={usd(value)} />)}
      </dl>
      <section><h3>Where it goes, and why</h3><Flow decisions={rate.decisions} unit="/s" /></section>
      <section class="charts">{history?.at?.length > 1 && CHARTS.map((chart) => <Chart key={chart.title} columns={history} {...chart} />)}</section>
      <section><Table caption="Replicas" columns={ENDPOINTS} rows={model.endpoints.map((one) => ({...one, key: one.id}))} first="replica" descends={false} /></section>
      <section><Table caption="Reasons" first="count" rows={reasons} columns={[{name: "reason", text: true, value: (row) => row.reason}, {name: "count", value: (row) => row.count}, {name: "per second", value: (row) => row.rate, shown: (row) => number(row.rate, 2)}]} /></section>
      <Explain name={name} />
    </>
  );
}

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

const PARTS = ["serverless", "warm_busy", "warm_idle", "kept_warm"];

function Tenants() {
  const {requests = {}, cost_usd = {}, refusals = {}} = state.tenants;
  const names = [...new Set([...Object.keys(requests), ...Object.keys(cost_usd)])];
  const rows = names.map((name) => ({key: name, name, requests: requests[name] ?? {}, usd: cost_usd[name] ?? {}}));
  const bill = rows.reduce((all, row) => all + sum(row.usd), 0);
  const refused = Object.entries(refusals).flatMap(([key, causes]) => Object.entries(causes).map(([cause, count]) => ({key: `${key} ${cause}`, name: key, cause, count})));
  const columns = [
    {name: "tenant", text: true, value: (row) => row.name, shown: (row) => row.name || <i>nobody</i>},
    {name: "requests", value: (row) => sum(row.requests)},
    {name: "not ok", value: (row) => sum(row.requests) - (row.requests.ok ?? 0)},
    ...PARTS.map((part) => ({name: `USD ${words(part)}`, value: (row) => row.usd[part] ?? 0, shown: (row) => usd(row.usd[part] ?? 0)})),
    {name: "USD", value: (row) => sum(row.usd), shown: (row) => usd(sum(row.usd))},
    {name: "% of the bill", value: (row) => sum(row.usd), shown: (row) => (bill ? number((100 * sum(row.usd)) / bill) : "")},
  ];
  return (
    <>
      <h2>Tenants and keys</h2>
      <section><Table caption={`${rows.length} tenants, ${usd(bill)} USD since the start`} columns={columns} rows={rows} first="USD" /></section>
      <section>
        <Table caption="Refusals by key" first="count" rows={refused} columns={[
          {name: "key", text: true, value: (row) => row.name, shown: (row) => row.name || <i>none</i>},
          {name: "cause", text: true, value: (row) => row.cause, shown: (row) => words(row.cause)},
          {name: "count", value: (row) => row.count},
        ]} />
      </section>
      <p class="quiet">Calls are their callers'. Replicas at work are paid by the seconds that requests held slots, idle ones by the use of the last half hour to hour; what nobody used is nobody's.</p>
    </>
  );
}

const KINDS = ["config", "sizing", "replica", "ejection", "circuit", "throttled", "canary", "shared_state", "certificate", "log", "process"];

function Events() {
  const [kind, only] = useState("");
  const [text, find] = useState("");
  const [found, show] = useState([]);
  useEffect(() => {
    let last = 0, isOver = false, timer;
    show([]);
    const read = async () => {
      const query = new URLSearchParams({after: last, ...(kind && {kind}), ...(text && {text})});
      const document = await ask(`/v1/events?${query}`);
      if (isOver) return;
      if (document.events?.length) {
        last = document.last;
        show((before) => [...document.events.reverse(), ...before].slice(0, 1000));
      }
      timer = setTimeout(read, 2000);
    };
    read();
    return () => { isOver = true; clearTimeout(timer); };
  }, [kind, text]);
  return (
    <>
      <h2>Events</h2>
      <p>
        <label>kind <select value={kind} onChange={(event) => only(event.target.value)}><option value="">all</option>{KINDS.map((one) => <option key={one} value={one}>{words(one)}</option>)}</select></label>{" "}
        <label>find <input type="search" value={text} onInput={(event) => find(event.target.value)} /></label>
      </p>
      <ol class="events">
        {found.map((event) => (
          <li key={event.id} class={event.level}>
            <details>
              <summary><time>{new Date(event.at * 1000).toISOString().slice(0, 19).replace("T", " ")}</time> <b>{words(event.kind)}</b> {event.text}</summary>
              <dl>{Object.entries(event.facts).map(([name, value]) => <div key={name}><dt>{words(name)}</dt><dd>{String(value)}</dd></div>)}</dl>
            </details>
          </li>
        ))}
      </ol>
      {!found.length && <p class="quiet">Nothing yet.</p>}
    </>
  );
}

function Token() {
  return (
    <form onSubmit={(event) => { event.preventDefault(); token(new FormData(event.target).get("token")); location.reload(); }}>
      <label>token of server.admin_token_file <input name="token" type="password" required /></label> <button>show</button>
    </form>
  );
}

const VIEWS = {fleet: "Fleet", tenants: "Tenants", events: "Events"};

function Page() {
  useFeed();
  const view = useView(), [kind, name] = view.split("/");
  return (
    <>
      <header>
        <h1>Hybrid router</h1>
        <nav aria-label="views">{Object.entries(VIEWS).map(([key, label]) => <a key={key} href={`#${key}`} aria-current={view === key ? "page" : undefined}>{label}</a>)}</nav>
        <span class={state.connected ? "quiet" : "bad"} role="status">{state.connected ? `as of ${new Date(state.at * 1000).toISOString().slice(11, 19)} UTC` : state.error || "connecting"}</span>
      </header>
      <main>
        {state.error === "token" ? <Token /> : kind === "model" ? <Model key={name} name={decodeURIComponent(name ?? "")} /> : kind === "tenants" ? <Tenants /> : kind === "events" ? <Events /> : <Fleet />}
      </main>
    </>
  );
}

render(<Page />, document.getElementById("page"));
run();
