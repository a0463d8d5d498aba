// A document of the admin port, read again and again while a view shows it.

import {useEffect, useState} from "preact/hooks";
import {ask} from "./feed.js";

const EVERY_MS = 10_000;

export function useDocument(path, every = EVERY_MS) {
  const [found, show] = useState(null);
  const [turn, again] = useState(0);
  useEffect(() => {
    let isOver = false;
    const read = async () => {
      const document = await ask(path);
      if (!isOver) show(document);
    };
    read();
    const timer = setInterval(read, every);
    return () => { isOver = true; clearInterval(timer); };
  }, [path, turn]);
  return [found, () => again((before) => before + 1)];
}
