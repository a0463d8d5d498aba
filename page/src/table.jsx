// A table whose head sorts it, by mouse or keyboard. A column: name, value of a row, how it is shown.

import {useMemo, useState} from "preact/hooks";

const ROW = 26;  // pixels, as page.css has it
const SPARE = 12;
const ALL_BELOW = 80;  // rows that are all there; of more only those that can be seen

function order(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function Table({caption, columns, rows, first, descends = true}) {
  const [by, sort] = useState({column: first, descends});
  const [top, scroll] = useState(0);
  const sorted = useMemo(() => {
    const value = columns.find((column) => column.name === by.column).value;
    const factor = by.descends ? -1 : 1;
    return [...rows].sort((a, b) => order(value(a) ?? -1, value(b) ?? -1) * factor);
  }, [rows, by]);
  const is_long = sorted.length > ALL_BELOW;
  const begin = is_long ? Math.min(Math.max(0, Math.floor(top / ROW) - SPARE), sorted.length - 1) : 0;
  const end = is_long ? Math.min(sorted.length, begin + Math.ceil(innerHeight / ROW) + 2 * SPARE) : sorted.length;
  return (
    <div class="scrolls" tabindex="0" role="region" aria-label={caption} onScroll={is_long ? (event) => scroll(event.currentTarget.scrollTop) : undefined}>
      <table aria-rowcount={sorted.length + 1}>
        <caption>{caption}</caption>
        <thead>
          <tr>
            {columns.map(({name, text, told}) => (
              <th key={name} scope="col" class={text ? "text" : ""} title={told} aria-sort={by.column !== name ? "none" : by.descends ? "descending" : "ascending"}>
                <button onClick={() => sort({column: name, descends: by.column === name ? !by.descends : !text})}>{name}</button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {begin > 0 && <Space rows={begin} />}
          {sorted.slice(begin, end).map((row, at) => (
            <tr key={row.key} aria-rowindex={begin + at + 2}>
              {columns.map(({name, value, shown, text}) => (
                <td key={name} class={text ? "text" : ""}>{shown ? shown(row) : value(row)}</td>
              ))}
            </tr>
          ))}
          {end < sorted.length && <Space rows={sorted.length - end} />}
        </tbody>
      </table>
    </div>
  );
}

const Space = ({rows}) => <tr class="space" aria-hidden="true" style={{height: `${rows * ROW}px`}} />;

export function Figure({label, value, bad}) {
  return <div class={bad ? "figure bad" : "figure"}><dt>{label}</dt><dd>{value}</dd></div>;
}
