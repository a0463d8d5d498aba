// Numbers and names as people read them.

export const number = (value, digits = 1) =>
  value === null || value === undefined ? "" : value.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits});
export const count = (value) => (value ?? 0).toLocaleString("en", {maximumFractionDigits: 0});
export const usd = (value) => (value >= 1000 ? count(value) : value >= 0.01 ? number(value, 2) : value ? value.toPrecision(2) : "0");
export const percent = (share, digits = 0) => (share === null || share === undefined ? "" : `${number(100 * share, digits)} %`);
export const sum = (counts) => Object.values(counts ?? {}).reduce((all, value) => all + value, 0);
export const words = (text) => String(text).replaceAll("_", " ");

// The largest of some counts, with the share of each.
export function mix(counts, most = 2) {
  const all = sum(counts);
  const sorted = Object.entries(counts ?? {}).sort((a, b) => b[1] - a[1]);
  return sorted.slice(0, most).map(([name, value]) => `${words(name)} ${percent(value / all)}`).join(", ");
}
