// Where requests go, and why: clients, reasons and places, as wide as so many go there.

const WIDTH = 900, HEIGHT = 300, BAR = 10, GAP = 8, LEFT = 70, RIGHT = 110, MIDDLE = 380;

function stack(entries, scale) {
  let y = 0;
  const places = new Map();
  for (const [name, value] of entries) {
    places.set(name, {y, height: Math.max(1.5, value * scale), used: 0, used_in: 0});
    y += Math.max(1.5, value * scale) + GAP;
  }
  return places;
}

function Ribbon({from, to, x1, x2, height, name}) {
  const y1 = from + height / 2, y2 = to + height / 2, middle = (x1 + x2) / 2;
  return (
    <path class={`ribbon ${name}`} d={`M${x1},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2}`} stroke-width={height} />
  );
}

export function Flow({decisions, unit}) {
  const found = Object.entries(decisions).filter(([, value]) => value > 0);
  const byReason = new Map(), byPlace = new Map();
  for (const [key, value] of found) {
    const [place, reason] = key.split("/");
    byReason.set(reason, (byReason.get(reason) ?? 0) + value);
    byPlace.set(place, (byPlace.get(place) ?? 0) + value);
  }
  const sum = [...byPlace.values()].reduce((all, value) => all + value, 0);
  if (!sum) return <p class="quiet">No requests within the last seconds.</p>;
  const sorted = [...byReason].sort((a, b) => b[1] - a[1]);
  const scale = (HEIGHT - GAP * sorted.length) / sum;
  const reasons = stack(sorted, scale), places = stack([...byPlace].sort(), scale);
  const shown = (value) => `${value >= 10 ? value.toFixed(0) : value.toFixed(2)} ${unit}`;
  let left = 0;
  const ribbons = [];
  for (const [reason, value] of sorted) {
    const at = reasons.get(reason);
    ribbons.push(<Ribbon key={`c ${reason}`} from={left} to={at.y} x1={LEFT + BAR} x2={MIDDLE} height={Math.max(1, value * scale)} name="clients" />);
    left += value * scale;
    for (const [key, part] of found) {
      const [place, why] = key.split("/");
      if (why !== reason) continue;
      const to = places.get(place), height = Math.max(1, part * scale);
      ribbons.push(<Ribbon key={key} from={at.y + at.used} to={to.y + to.used_in} x1={MIDDLE + BAR} x2={WIDTH - RIGHT} height={height} name={place} />);
      at.used += part * scale;
      to.used_in += part * scale;
    }
  }
  return (
    <svg class="flow" viewBox={`0 -14 ${WIDTH} ${HEIGHT + 40}`} role="img" aria-label={`${shown(sum)} from clients, by reason and place`}>
      {ribbons}
      <rect class="bar" x={LEFT} y="0" width={BAR} height={sum * scale} />
      <text x={LEFT - 6} y="14" text-anchor="end">clients</text>
      <text x={LEFT - 6} y="30" text-anchor="end" class="quiet">{shown(sum)}</text>
      {sorted.map(([reason, value]) => {
        const at = reasons.get(reason);
        return (
          <g key={reason}>
            <rect class="bar" x={MIDDLE} y={at.y} width={BAR} height={at.height} />
            <text x={MIDDLE + BAR + 6} y={at.y + Math.min(12, at.height / 2 + 4)}>{reason.replaceAll("_", " ")} <tspan class="quiet">{shown(value)}</tspan></text>
          </g>
        );
      })}
      {[...byPlace].sort().map(([place, value]) => {
        const at = places.get(place);
        return (
          <g key={place}>
            <rect class={`bar ${place}`} x={WIDTH - RIGHT} y={at.y} width={BAR} height={at.height} />
            <text x={WIDTH - RIGHT + BAR + 6} y={at.y + 14}>{place}</text>
            <text x={WIDTH - RIGHT + BAR + 6} y={at.y + 30} class="quiet">{shown(value)}</text>
          </g>
        );
      })}
    </svg>
  );
}
