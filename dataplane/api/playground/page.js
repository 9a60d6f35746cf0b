// The page itself. The key lives in its field and nowhere else; requests go to this page's own origin and nowhere else.
const $ = id => document.getElementById(id);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const KEY_CHARACTERS = 63;
const MAX_WIRE_CHARACTERS = 200000;
const bodies = new Map();
const chosen = { completion: "", embedding: "" };
let models = [];
let current = null;
let controller = null;
let asking = "";

const key = () => $("key").value.trim();
const kind = () => current.kind || "completion";
const model = () => chosen[kind()];
const looksLikeEmbedding = name => /embed|minilm|bge|e5-/i.test(name);
const initialBody = endpoint => endpoint.body ? JSON.stringify(endpoint.body(model() || "llama3.2"), null, 2) : "";

const sampleRequest = endpoint => initialBody(endpoint) || `${endpoint.method} ${endpoint.path}`;

// Autofill likes to fill whatever stands beside a password: the address shown is never the one used.
function pinBase() { $("base").value = location.origin; }

function request() {
  const headers = { Authorization: `Bearer ${key() || "YOUR_API_KEY"}` };
  const name = model().split("/").map(encodeURIComponent).join("/").replaceAll("%3A", ":");
  const made = { url: location.origin + current.path.replace("{model}", name || "MODEL"), method: current.method, headers };
  if (current.body) {
    headers["Content-Type"] = "application/json";
    made.body = $("body").value;
  }
  return made;
}

const hidden = text => key() && $("key").type === "password" ? text.replaceAll(key(), key().slice(0, 12) + "•".repeat(12)) : text;

function draw() {
  const running = controller !== null;
  $("run").disabled = !key() || running;
  $("refresh").disabled = !key() || running;
  $("stop").disabled = !running;
  $("curl").textContent = hidden(curlOf(request()));
  $("body-fault").textContent = faultOf($("body").value);
}

function faultOf(text) {
  if (!current.body) return "";
  try { JSON.parse(text); return ""; } catch (fault) { return `Not JSON yet: ${fault.message}. It is sent as it stands.`; }
}

function say(id, text, look = "") {
  $(id).textContent = text;
  $(id).className = `${id} ${look}`;
}

// Ends what runs without a word: its card is no longer shown.
function leave() {
  if (controller) controller.abort();
  controller = null;
  $("text").setAttribute("aria-busy", "false");
}

function choose(endpoint, focus = false) {
  leave();
  if (current) keepBody();
  current = endpoint;
  pinBase();
  for (const tab of $("tabs").querySelectorAll("button")) {
    const selected = tab.endpoint === endpoint;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    if (selected && focus) tab.focus();
    if (selected) tab.scrollIntoView({ block: "nearest", inline: "center" });
  }
  $("method").textContent = endpoint.method;
  $("method").className = `method ${endpoint.method} ${endpoint.group === "Refused" ? "closed" : ""}`;
  $("path").textContent = endpoint.path;
  const badges = [`${endpoint.group === "Refused" ? "Ollama" : endpoint.group} dialect`, "Bearer key", endpoint.streams ? `streams ${endpoint.streams}` : "one reply"];
  $("badges").replaceChildren(...badges.map(text => element("li", { textContent: text })));
  $("about").textContent = endpoint.about;
  $("note").textContent = endpoint.note;
  $("sample-request").textContent = sampleRequest(endpoint);
  $("sample-reply").textContent = endpoint.sample;
  $("body").value = bodies.get(endpoint) ?? initialBody(endpoint);
  $("body").disabled = !endpoint.body;
  $("body").placeholder = endpoint.body ? "" : "This request has no body.";
  showModels();
  followBody();
  clear();
  draw();
}

function showModels() {
  const names = models.length ? models : [""];
  $("model").replaceChildren(...names.map(name => new Option(name || (key() ? "no model" : "enter a key first"), name)));
  $("model").value = model();
  $("model").disabled = !models.length || !current.kind;
}

// A card that nobody edited follows the chosen model when it is shown again.
function keepBody() {
  if ($("body").value === initialBody(current)) bodies.delete(current);
  else bodies.set(current, $("body").value);
}

const bodyNow = () => { try { return JSON.parse($("body").value); } catch { return null; } };

// Puts the chosen model into the body, whatever else was written there.
function useModel() {
  const body = current.body ? bodyNow() : null;
  if (body === null || !model() || body.model === model()) return;
  body.model = model();
  $("body").value = JSON.stringify(body, null, 2);
}

// The list shows the model that was written into the body, if it has it; what it cannot have is replaced on request.
function followBody({ replace = false } = {}) {
  const body = current.body ? bodyNow() : null;
  if (body !== null && models.includes(body.model)) chosen[kind()] = body.model;
  else if (replace) useModel();
  if (models.length) $("model").value = model();
}

function clear() {
  for (const id of ["first", "speed", "prompt", "completion"]) $(id).textContent = "–";
  for (const id of ["text", "wire", "headers", "limits"]) $(id).replaceChildren();
  say("status", "");
}

async function refresh() {
  const asked = key();
  if (!asked || asked === asking) return;
  asking = asked;
  const [names, text, look] = await listed(asked);
  if (asking !== asked) return;
  asking = "";
  models = names;
  say("access", text, look);
  for (const [which, fits] of [["completion", name => !looksLikeEmbedding(name)], ["embedding", looksLikeEmbedding]]) {
    if (!models.includes(chosen[which])) chosen[which] = models.find(fits) || models[0] || "";
  }
  $("sample-request").textContent = sampleRequest(current);
  showModels();
  followBody({ replace: true });
  draw();
}

// What a key may use: [names, a sentence, how it is shown].
async function listed(asked) {
  try {
    const reply = await fetch(location.origin + "/api/tags", { headers: { Authorization: `Bearer ${asked}` }, credentials: "omit", cache: "no-store" });
    const record = await reply.json();
    if (!reply.ok) return [[], `${reply.status}: ${saidBy(record).map(said => said[1]).join(" ")}`, "bad"];
    const names = record.models.map(item => item.name);
    return [names, `${names.length} ${names.length === 1 ? "model" : "models"} may be used with this key.`, "ok"];
  } catch {
    return [[], "The gateway cannot be reached.", "bad"];
  }
}

// A key that was changed must not be shown with what another one may use.
function keyChanged() {
  asking = "";
  models = [];
  chosen.completion = chosen.embedding = "";
  say("access", key() ? "Press Enter, or Refresh, to list its models." : "Enter an API key to begin.");
  showModels();
  draw();
  if (key().length === KEY_CHARACTERS) refresh();
}
