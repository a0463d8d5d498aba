// Calls that are answered later: how many, how late, at what cost, and what failed for good.

import {useState} from "preact/hooks";
import {useDocument} from "./document.js";
import {ask} from "./feed.js";
import {count, usd, words} from "./format.js";
import {Figure, Table} from "./table.jsx";

const STATES = ["queued", "running", "done", "dead", "cancelled", "expired"];
const time = (seconds) => (seconds ? new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") : "");
const span = (seconds) => (Math.abs(seconds) < 120 ? `${Math.round(seconds)} s` : Math.abs(seconds) < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`);

const LANES = [
  {name: "model", text: true, value: (row) => row.model},
  {name: "tenant", text: true, value: (row) => row.tenant, shown: (row) => row.tenant || <i>nobody</i>},
  {name: "batch", text: true, value: (row) => row.batch_id},
  {name: "waiting", value: (row) => row.waiting, shown: (row) => count(row.waiting)},
  {name: "due in", value: (row) => row.due_in_s, shown: (row) => <span class={row.due_in_s < 0 ? "bad" : ""}>{row.due_in_s < 0 ? `late by ${span(-row.due_in_s)}` : span(row.due_in_s)}</span>},
];

export function Jobs() {
  const [state, only] = useState("dead");
  const [answer, told] = useState("");
  const [found, again] = useDocument(`/v1/jobs?limit=100${state && `&status=${state}`}`, 2000);
  const retry = async (id) => {
    const reply = await ask("/v1/jobs", {id, action: "retry"});
    told(`${id}: ${reply.error ? reply.error.message ?? reply.error : "waits again"}`);
    again();
  };
  if (!found) return <p class="quiet">Reading.</p>;
  if (found.error) return <p class="bad">{found.error.message ?? found.error}</p>;
  const columns = [
    {name: "retry", text: true, value: (row) => row.status, shown: (row) => row.status === "dead" && <button onClick={() => retry(row.id)}>try again</button>},
    {name: "job", text: true, value: (row) => row.id},
    {name: "state", text: true, value: (row) => row.status, shown: (row) => <span class={row.status === "dead" ? "bad" : ""}>{row.status}</span>},
    {name: "model", text: true, value: (row) => row.model},
    {name: "tenant", text: true, value: (row) => row.tenant, shown: (row) => row.tenant || <i>nobody</i>},
    {name: "came", text: true, value: (row) => row.created_at, shown: (row) => time(row.created_at)},
    {name: "due", text: true, value: (row) => row.due_at, shown: (row) => time(row.due_at)},
    {name: "ended", text: true, value: (row) => row.ended_at ?? 0, shown: (row) => time(row.ended_at)},
    {name: "why", text: true, value: (row) => row.error?.message ?? ""},
    {name: "attempts", value: (row) => row.attempts},
    {name: "USD", value: (row) => row.cost_usd, shown: (row) => usd(row.cost_usd)},
  ];
  return (
    <>
      <h2>Jobs</h2>
      {!found.on && <p class="quiet">None can come: `jobs.directory` is not set.</p>}
      <dl class="figures">
        {STATES.map((name) => <Figure key={name} label={name} value={count(found.states[name])} bad={name === "dead" && found.states.dead > 0} />)}
        <Figure label="most urgent one is late by" value={found.overdue_s ? span(found.overdue_s) : "–"} bad={found.overdue_s > 0} />
      </dl>
      <section><Table caption="What waits, by model, tenant and batch" columns={LANES} first="due in" descends={false} rows={found.lanes.map((lane, at) => ({...lane, key: at}))} /></section>
      <section>
        <label>state <select value={state} onChange={(event) => only(event.target.value)}><option value="">all</option>{STATES.map((name) => <option key={name} value={name}>{words(name)}</option>)}</select></label>
        <p role="status">{answer}</p>
        <Table caption={`${found.jobs.length}${found.has_more ? " of more" : ""} jobs`} columns={columns.filter((column) => column.name !== "retry" || found.jobs.some((job) => job.status === "dead"))} first="came" rows={found.jobs.map((job) => ({...job, key: job.id}))} />
      </section>
    </>
  );
}
