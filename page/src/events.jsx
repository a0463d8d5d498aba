// What happened, each with the numbers that caused it.

import {useEffect, useState} from "preact/hooks";
import {ask} from "./feed.js";
import {words} from "./format.js";

const KINDS = ["config", "sizing", "replica", "ejection", "circuit", "throttled", "canary", "shared_state", "certificate", "delivery", "log", "process", "budget"];

export function Events() {
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
