// Numbers and times as people read them.

const grouped = new Intl.NumberFormat("en-US");

export const count = (n) => (n >= 1e6 ? `${trim(n / 1e6)}M` : n >= 1e4 ? `${trim(n / 1e3)}k` : grouped.format(Math.round(n)));

const trim = (n) => n.toFixed(n < 10 ? 2 : n < 100 ? 1 : 0).replace(/\.?0+$/, "");

export function usd(n) {
  if (!n) return "$0";
  const size = Math.abs(n);
  if (size >= 100) return `$${grouped.format(Math.round(n))}`;
  if (size >= 1) return `$${n.toFixed(2)}`;
  const places = Math.min(9, Math.max(2, 1 - Math.floor(Math.log10(size))));
  return `$${n.toFixed(places).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

/** As somebody wrote it. */
export const exact = (n) => `$${n.toLocaleString("en-US", { minimumFractionDigits: n < 1 ? 0 : 2, maximumFractionDigits: 9 })}`;

export function seconds(s) {
  if (s == null) return "–";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  return s < 10 ? `${s.toFixed(1)} s` : span(s);
}

export function span(s) {
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const time = (at) => clock.format(at * 1000);

export const percent = (part) => `${(part * 100).toFixed(part && part < 0.0995 ? 1 : 0)}`;
