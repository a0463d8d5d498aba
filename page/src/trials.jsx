// Canaries and shadows: how they compare, and what may be done to a canary.

import {useState} from "preact/hooks";
import {ask} from "./feed.js";
import {count, number, words} from "./format.js";
import {Table} from "./table.jsx";

const SIDES = [
  {name: "side", text: true, value: (row) => row.key},
  {name: "requests", value: (row) => row.requests, shown: (row) => count(row.requests)},
  {name: "failed", value: (row) => row.failed},
  {name: "p95 ms", value: (row) => row.p95_ms, shown: (row) => number(row.p95_ms)},
];

export function Canaries({canaries}) {
  const [answer, told] = useState("");
  const act = async (rule, action) => told(`${rule}: ${(await ask("/v1/canary", {rule, action})).error ?? words(action)}`);
  if (!canaries.length) return null;
  return (
    <section>
      <h2>Canaries</h2>
      {canaries.map((canary) => (
        <div key={canary.rule}>
          <p>
            Rule <b>{canary.rule}</b> of {canary.model}: {canary.canary_model}{canary.canary_version && ` version ${canary.canary_version}`} gets {number(canary.share_percent)} %
            {canary.finding && <span class="bad"> rolled back: {canary.finding}</span>}{" "}
            <button onClick={() => act(canary.rule, canary.finding ? "resume" : "roll_back")}>{canary.finding ? "resume" : "roll back"}</button>
          </p>
          <Table caption={`Last minutes of ${canary.rule}`} columns={SIDES} first="side" rows={Object.entries(canary.window).map(([side, found]) => ({key: side, ...found}))} />
        </div>
      ))}
      <p role="status">{answer}</p>
    </section>
  );
}

const SHADOWS = [
  {name: "shadow", text: true, value: (row) => row.model},
  {name: "copies sent", value: (row) => row.copies.ok ?? 0},
  {name: "failed or dropped", value: (row) => Object.entries(row.copies).filter(([name]) => name !== "ok").reduce((all, [, value]) => all + value, 0)},
  {name: "same answer", value: (row) => row.comparisons.match ?? 0},
  {name: "another answer", value: (row) => row.comparisons.mismatch ?? 0, shown: (row) => <span class={row.comparisons.mismatch ? "bad" : ""}>{row.comparisons.mismatch ?? 0}</span>},
  {name: "largest difference", value: (row) => row.max_difference, shown: (row) => row.max_difference ? row.max_difference.toPrecision(3) : "0"},
  {name: "last other answer", text: true, value: (row) => row.last_mismatch ?? ""},
];

export function Shadows({shadows}) {
  if (!shadows.length) return null;
  return <section><Table caption="Shadows" columns={SHADOWS} first="shadow" descends={false} rows={shadows.map((one) => ({...one, key: one.model}))} /></section>;
}
