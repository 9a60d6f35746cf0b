// Reading replies: bytes become records, records become what a person reads. No part of the page is touched here.

// Splits a growing text into records: server-sent events, lines of JSON, or the whole reply.
class Records {
  constructor(contentType) {
    this.isEvents = contentType.includes("event-stream");
    this.isStreamed = this.isEvents || contentType.includes("ndjson");
    this.rest = "";
  }

  add(text) {
    this.rest += text.replaceAll("\r", "");
    if (!this.isStreamed) return [];
    const parts = this.rest.split(this.isEvents ? "\n\n" : "\n");
    this.rest = parts.pop();
    return parts.flatMap(part => this.decoded(part));
  }

  end() {
    const last = this.decoded(this.rest);
    this.rest = "";
    return last;
  }

  decoded(part) {
    const lines = part.split("\n");
    const data = this.isEvents ? lines.filter(line => line.startsWith("data:")).map(line => line.slice(5)) : lines;
    try { return [JSON.parse(data.join("\n"))]; } catch { return []; }
  }
}

// What a record says: [how it is shown, text] pairs.
function saidBy(record) {
  const said = [];
  const add = (look, text) => { if (text) said.push([look, text]); };
  if (record.error !== undefined) {
    add("fault", typeof record.error === "string" ? record.error : record.error.message || JSON.stringify(record.error));
    return said;
  }
  const choice = (record.choices || [])[0] || {};
  const message = choice.delta || choice.message || record.message || {};
  add("thought", message.reasoning || message.reasoning_content || message.thinking || record.thinking);
  add("answer", message.content || choice.text || record.response);
  if (message.tool_calls && message.tool_calls.length) {
    add("tool", message.tool_calls.map(call => calledBy(call.function || {})).join("\n"));
  }
  return said;
}

// A call, or the piece of one that a record holds: its name comes first, its arguments bit by bit.
function calledBy({ name = "", arguments: given = "" }) {
  return name + (typeof given === "string" ? given : JSON.stringify(given));
}

// The tokens that a record accounts for, in either dialect; null where it says nothing of them.
function usageOf(record) {
  if (record.usage) return { prompt: record.usage.prompt_tokens ?? 0, completion: record.usage.completion_tokens ?? 0 };
  if (record.prompt_eval_count !== undefined || record.eval_count !== undefined) {
    return { prompt: record.prompt_eval_count ?? 0, completion: record.eval_count ?? 0 };
  }
  return null;
}

// A reply that is no conversation, in a few lines.
function summaryOf(record) {
  const vectors = record.embeddings || (record.data || []).map(item => item.embedding).filter(Boolean);
  const all = record.embedding ? [record.embedding] : vectors;
  if (all.length) return all.map((vector, index) => `vector ${index + 1}: ${describeVector(vector)}`).join("\n");
  if (Array.isArray(record.models)) return record.models.map(model => model.name).join("\n") || "no model";
  if (record.object === "list") return record.data.map(model => model.id).join("\n") || "no model";
  return JSON.stringify(record, null, 2);
}

function describeVector(vector) {
  if (typeof vector === "string") return `${vector.length} characters of base64`;
  const head = vector.slice(0, 4).map(number => number.toFixed(4)).join(", ");
  return `${vector.length} dimensions [${head}${vector.length > 4 ? ", …" : ""}]`;
}

// What the reply's headers say of the limits per minute: [what, limit, remaining, seconds until all is there again].
function limitsOf(headers) {
  return ["requests", "tokens"].map(what => {
    const [limit, remaining, reset] = ["limit", "remaining", "reset"].map(part => headers.get(`x-ratelimit-${part}-${what}`));
    return limit === null ? null : { what, limit: Number(limit), remaining: Number(remaining), reset };
  }).filter(Boolean);
}

const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'";

// The same request for a shell. --data-raw: a body that starts with @ must not name a file.
function curlOf({ url, method, headers, body }) {
  const parts = ["curl -sSN " + quoted(url)];
  if (method !== "GET" && method !== "POST") parts.push("-X " + method);
  for (const [name, value] of Object.entries(headers)) parts.push("-H " + quoted(`${name}: ${value}`));
  if (body !== undefined) parts.push("--data-raw " + quoted(body));
  return parts.join(" \\\n  ");
}
