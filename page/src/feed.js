// The stream of the admin port, as state: the whole view first, then what changed of it.

const RATE_OVER_S = 30;
const RETRY_S = 2;

export const state = {at: 0, models: new Map(), rest: {}, tenants: {}, connected: false, error: "", every: sessionStorage.getItem("every") === "1"};
const listeners = new Set();
let samples = [], counting = "", reading = new AbortController();

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const changed = () => listeners.forEach((listener) => listener());

export function token(value) {
  if (value !== undefined) sessionStorage.setItem("token", value);
  return sessionStorage.getItem("token") ?? "";
}

// Whether to show all gateways that share their state, or the one that is asked.
export function showEvery(every) {
  sessionStorage.setItem("every", every ? "1" : "");
  state.every = every;
  reading.abort();
  changed();
}

export async function ask(path, question) {
  const headers = token() ? {authorization: `Bearer ${token()}`} : {};
  const options = question === undefined ? {headers} : {method: "POST", body: JSON.stringify(question), headers};
  const response = await fetch(path, options);
  const document = await response.json().catch(() => ({error: `${response.status}`}));
  if (!response.ok && document.error === undefined) document.error = `${response.status}`;
  return document;
}

function take(message) {
  if (message.whole) state.models = new Map();
  for (const [name, model] of Object.entries(message.models)) state.models.set(name, model);
  for (const name of message.gone) state.models.delete(name);
  state.at = message.at;
  state.rest = message.rest;
  state.tenants = message.tenants;
  state.connected = true;
  state.error = "";
  // Counts of a gateway that has come, or gone, are nothing that has happened since.
  const who = JSON.stringify([state.every, (message.rest.gateways ?? []).map((one) => one.id)]);
  if (who !== counting) samples = [];
  counting = who;
  samples.push({at: message.at, models: new Map(state.models)});
  samples = samples.filter((sample) => sample.at >= message.at - RATE_OVER_S - 5);
  changed();
}

const total = (counts) => Object.values(counts).reduce((sum, value) => sum + value, 0);

// What grew within the last seconds: decisions by the second, dollars (also of what else might have been) by the hour.
export function rates(name) {
  const now = samples.at(-1), then = samples.find((sample) => sample.models.has(name));
  const after = now?.models.get(name), before = then?.models.get(name);
  const seconds = now && then ? now.at - then.at : 0;
  const found = {decisions: {}, requests: 0, usd: {}, usdPerHour: 0, insteadPerHour: {}};
  if (!after || !before || seconds <= 0) return found;
  const rate = (counts, earlier) => Object.fromEntries(
    Object.entries(counts).map(([key, value]) => [key, Math.max(0, value - (earlier[key] ?? 0)) / seconds]),
  );
  found.decisions = rate(after.decisions, before.decisions);
  found.requests = total(found.decisions);
  const hourly = (counts, earlier) => Object.fromEntries(
    Object.entries(rate(counts, earlier)).map(([part, usd]) => [part, usd * 3600]),
  );
  found.usd = hourly(after.cost_usd, before.cost_usd);
  found.insteadPerHour = hourly(after.alternatives_usd, before.alternatives_usd);
  found.usdPerHour = total(found.usd);
  return found;
}

async function read() {
  const headers = token() ? {authorization: `Bearer ${token()}`} : {};
  reading = new AbortController();
  const response = await fetch(state.every ? "/v1/stream?fleet=1" : "/v1/stream", {headers, signal: reading.signal});
  if (!response.ok) throw new Error(response.status === 401 ? "token" : `the gateway answered ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) throw new Error("the gateway has closed the stream");
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      take(JSON.parse(text.slice("data: ".length, end)));
      text = text.slice(end + 2);
    }
  }
}

export async function run() {
  for (;;) {
    try {
      await read();
    } catch (error) {
      if (reading.signal.aborted) continue;
      state.connected = false;
      state.error = error.message;
      changed();
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_S * 1000));
  }
}
