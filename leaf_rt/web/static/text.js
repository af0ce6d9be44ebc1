// Words, numbers and colors: how values are written for people.

export const UNCERTAIN = "uncertain";

/** "83 %" for 0.83, with a space that does not break. */
export const percent = (share) => `${Math.round(share * 100)}\u00a0%`;

/** "84 ms", with one decimal below 10. */
export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

/** "12 s", "3 min", "2 h". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 100) return `${whole} s`;
  return whole < 5400 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
}

/** The state of a source in words. `waited` is the number of seconds since the server reported the state. */
export function stateText(source, waited = 0) {
  const time = duration(source.since_s + waited);
  switch (source.state) {
    case "live":
      return "live";
    case "connecting":
      return "connecting";
    case "offline": {
      const next = source.retry_in_s === null ? "" : `, next try in ${duration(source.retry_in_s - waited)}`;
      return `offline for ${time}${next}`;
    }
    case "frozen":
      return `frozen for ${time}`;
    case "refused":
      return `refused: ${source.reason || "no reason given"}`;
    default:
      return source.state;
  }
}

/** Black or white, whichever is easier to read on a color "#rrggbb": the contrast is always above 4.5:1. */
export function inkOn(color) {
  return luminance(color) > 0.179 ? "#000000" : "#ffffff";
}

function luminance(color) {
  const parts = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);
  const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
