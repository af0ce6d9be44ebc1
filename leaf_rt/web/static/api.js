// HTTP requests to the server. Every failure becomes an Error whose message is one sentence.

async function call(method, path, body) {
  const request = { method, headers: {} };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new Error("leaf-rt does not answer; check that it still runs.");
  }
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    // Not JSON: the status says enough.
  }
  if (!answer.ok) {
    const detail = typeof value?.detail === "string" ? value.detail : `The server answered with status ${answer.status}.`;
    throw Object.assign(new Error(detail), { status: answer.status });
  }
  return value;
}

const at = (id) => `/v1/sources/${encodeURIComponent(id)}`;

export const getInfo = () => call("GET", "/v1/info");
export const addSource = (target, name) => call("POST", "/v1/sources", name ? { target, name } : { target });
export const removeSource = (id) => call("DELETE", at(id));
export const setSourceState = (id, state) => call("PATCH", at(id), { state });
export const recordsPath = (id, seconds, format) => `${at(id)}/records?seconds=${seconds}&format=${format}`;
export const getRecords = async (id, seconds) => (await call("GET", recordsPath(id, seconds, "json"))).records;
