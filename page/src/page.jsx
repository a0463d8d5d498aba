// The frame: views by the address's fragment, the state of the stream, and the token where one is asked for.

import {render} from "preact";
import {useEffect, useState} from "preact/hooks";
import {Events} from "./events.jsx";
import {run, showEvery, state, subscribe, token} from "./feed.js";
import {Fleet} from "./fleet.jsx";
import {Jobs} from "./jobs.jsx";
import {Model} from "./model.jsx";
import {Quality} from "./quality.jsx";
import {Tenants} from "./tenants.jsx";

function useFeed() {
  const [, redraw] = useState(0);
  useEffect(() => subscribe(() => redraw((turn) => turn + 1)), []);
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

function Token() {
  return (
    <form onSubmit={(event) => { event.preventDefault(); token(new FormData(event.target).get("token")); location.reload(); }}>
      <label>token of server.admin_token_file <input name="token" type="password" required /></label> <button>show</button>
    </form>
  );
}

const VIEWS = {fleet: ["Fleet", Fleet], tenants: ["Tenants", Tenants], quality: ["Quality", Quality], jobs: ["Jobs", Jobs], events: ["Events", Events]};

function View({kind, name}) {
  if (state.error === "token") return <Token />;
  if (kind === "model") return <Model key={name} name={decodeURIComponent(name ?? "")} />;
  const [, Shown] = VIEWS[kind] ?? VIEWS.fleet;
  return <Shown />;
}

function Scope() {
  const siblings = Math.max(0, (state.rest.processes ?? []).length - 1);
  if (!state.every && !(state.rest.shared_state?.peers > siblings)) return null;
  return (
    <select aria-label="which gateways" value={state.every ? "all" : "this"} onChange={(event) => showEvery(event.target.value === "all")}>
      <option value="this">this gateway</option>
      <option value="all">all gateways</option>
    </select>
  );
}

function Page() {
  useFeed();
  const view = useView(), [kind, name] = view.split("/");
  return (
    <>
      <header>
        <h1>Hybrid router</h1>
        <nav aria-label="views">{Object.entries(VIEWS).map(([key, [label]]) => <a key={key} href={`#${key}`} aria-current={view === key ? "page" : undefined}>{label}</a>)}</nav>
        <Scope />
        <span class={state.connected ? "quiet" : "bad"} role="status">{state.connected ? `as of ${new Date(state.at * 1000).toISOString().slice(11, 19)} UTC` : state.error || "connecting"}</span>
      </header>
      <main><View kind={kind} name={name} /></main>
    </>
  );
}

render(<Page />, document.getElementById("page"));
run();
