// Who asks for what, who pays, who is refused.

import {state} from "./feed.js";
import {count, number, percent, sum, usd, words} from "./format.js";
import {Table} from "./table.jsx";

const PARTS = ["serverless", "warm_busy", "warm_idle", "kept_warm"];

const spent = (budget) => Math.max(...Object.values(budget ?? {}).map((found) => found.spent_usd / found.usd), -1);

function Budget({budget}) {
  return Object.entries(budget ?? {}).map(([period, found]) => (
    <span key={period} class={found.spent_usd >= found.usd ? "budget bad" : "budget"}>
      <meter min="0" max="1" high="0.8" low="0.8" optimum="0" value={found.spent_usd / found.usd} aria-label={`budget of the ${period}`} /> {percent(found.spent_usd / found.usd)} of {usd(found.usd)} a {period}
    </span>
  ));
}

export function Tenants() {
  const {requests = {}, cost_usd = {}, refusals = {}, tokens = {}, gb_s = {}, budgets = {}} = state.tenants;
  const names = [...new Set([...Object.keys(requests), ...Object.keys(cost_usd), ...Object.keys(budgets)])];
  const rows = names.map((name) => ({key: name, name, requests: requests[name] ?? {}, usd: cost_usd[name] ?? {}, tokens: tokens[name] ?? {}, gb_s: sum(gb_s[name]), budget: budgets[name]}));
  const bill = rows.reduce((all, row) => all + sum(row.usd), 0);
  const refused = Object.entries(refusals).flatMap(([key, causes]) => Object.entries(causes).map(([cause, number]) => ({key: `${key} ${cause}`, name: key, cause, count: number})));
  const columns = [
    {name: "tenant", text: true, value: (row) => row.name, shown: (row) => row.name || <i>nobody</i>},
    {name: "USD", value: (row) => sum(row.usd), shown: (row) => usd(sum(row.usd))},
    {name: "% of the bill", value: (row) => sum(row.usd), shown: (row) => (bill ? number((100 * sum(row.usd)) / bill) : "")},
    {name: "budget", text: true, value: (row) => spent(row.budget), shown: (row) => <Budget budget={row.budget} />},
    {name: "requests", value: (row) => sum(row.requests), shown: (row) => count(sum(row.requests))},
    {name: "not ok", value: (row) => sum(row.requests) - (row.requests.ok ?? 0), shown: (row) => count(sum(row.requests) - (row.requests.ok ?? 0))},
    {name: "tokens in", value: (row) => row.tokens.input ?? 0, shown: (row) => count(row.tokens.input)},
    {name: "tokens out", value: (row) => row.tokens.output ?? 0, shown: (row) => count(row.tokens.output)},
    {name: "GB-s", value: (row) => row.gb_s, shown: (row) => number(row.gb_s, 2)},
    ...PARTS.map((part) => ({name: `USD ${words(part)}`, value: (row) => row.usd[part] ?? 0, shown: (row) => usd(row.usd[part] ?? 0)})),
  ];
  return (
    <>
      <h2>Tenants and keys</h2>
      <section><Table caption={`${rows.length} tenants, ${usd(bill)} USD since the start`} columns={columns} rows={rows} first="USD" /></section>
      <section>
        <Table caption="Refusals by key" first="count" rows={refused} columns={[
          {name: "key", text: true, value: (row) => row.name, shown: (row) => row.name || <i>none</i>},
          {name: "cause", text: true, value: (row) => row.cause, shown: (row) => words(row.cause)},
          {name: "count", value: (row) => row.count, shown: (row) => count(row.count)},
        ]} />
      </section>
      <p class="quiet">Calls are their callers'. Replicas at work are paid by the seconds that requests held slots, idle ones by the use of the last half hour to hour; what nobody used is nobody's. Budgets are of the last 24 hours and 30 days, as far as the gateway has run for so long.</p>
    </>
  );
}
