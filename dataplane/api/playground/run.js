// Running a request: what is read is shown as it comes, and measured.
class Run {
  constructor() {
    this.started = performance.now();
    this.firstToken = null;
    this.last = this.started;
    this.pieces = 0;
    this.usage = null;
    this.look = "";
    this.failed = false;
    this.wire = 0;
  }

  async read(reply) {
    const records = new Records(reply.headers.get("content-type") || "");
    this.streamed = records.isStreamed;
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      this.keep(value);
      records.add(value).forEach(record => this.show(record));
    }
    records.end().forEach(record => this.show(record));
  }

  keep(text) {
    if (this.wire < MAX_WIRE_CHARACTERS) $("wire").append(text.slice(0, MAX_WIRE_CHARACTERS - this.wire));
    this.wire += text.length;
  }

  show(record) {
    const said = saidBy(record);
    this.usage = usageOf(record) || this.usage;
    if (!said.length && !this.streamed) said.push(["data", summaryOf(record)]);
    for (const [look, text] of said) {
      if (look === "fault") this.failed = true;
      else this.count();
      this.append(look, text);
    }
    this.measure();
  }

  count() {
    const now = performance.now();
    this.firstToken ??= now;
    this.last = now;
    this.pieces += 1;
  }

  append(look, text) {
    const box = $("text");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    if (look !== this.look) {
      if (this.look) box.append(element("span", { className: "gap" }));
      box.append(element("span", { className: look }));
      this.look = look;
    }
    box.lastElementChild.append(text);
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  measure() {
    if (this.firstToken !== null) $("first").textContent = duration(this.firstToken - this.started);
    const tokens = this.usage ? this.usage.completion : this.pieces;
    const seconds = (this.streamed && this.firstToken !== null ? this.last - this.firstToken : this.last - this.started) / 1000;
    const counted = this.streamed ? tokens - 1 : tokens;
    if (counted > 0 && seconds > 0.001 && (this.streamed || this.usage)) {
      $("speed").textContent = (this.usage ? "" : "≈ ") + (counted / seconds).toFixed(counted / seconds < 100 ? 1 : 0);
    }
    if (this.usage) {
      $("prompt").textContent = this.usage.prompt;
      $("completion").textContent = this.usage.completion;
    } else if (this.streamed && this.pieces) {
      $("completion").textContent = `≈ ${this.pieces}`;
    }
  }
}

const duration = ms => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;

function showHeaders(reply) {
  $("headers").textContent = [...reply.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  const lines = limitsOf(reply.headers).map(({ what, limit, remaining, reset }) => element("div", {},
    element("p", {}, element("span", { textContent: what === "requests" ? "Requests left" : "Tokens left" }),
      element("b", { textContent: `${remaining.toLocaleString("en")} / ${limit.toLocaleString("en")}`, title: `all of it again in ${reset}` })),
    element("progress", { max: limit, value: remaining, className: remaining < limit / 5 ? "low" : "", ariaLabel: `${what} left` })));
  const wait = reply.headers.get("retry-after");
  if (wait) lines.push(element("p", { className: "wide" }, "Retry after ", element("b", { textContent: `${wait} s` })));
  const ignored = reply.headers.get("x-gateway-ignored");
  if (ignored) lines.push(element("p", { className: "wide" }, "Left out: ", element("b", { textContent: ignored })));
  $("limits").replaceChildren(...lines);
}

async function run() {
  if (controller || !key()) return;
  const { url, method, headers, body } = request();
  const mine = controller = new AbortController();
  clear();
  draw();
  $("text").setAttribute("aria-busy", "true");
  say("status", "running…", "busy");
  if (matchMedia("(max-width: 48rem)").matches) document.querySelector(".reply").scrollIntoView({ block: "start" });
  const measured = new Run();
  try {
    const reply = await fetch(url, { method, headers, body, signal: mine.signal, credentials: "omit", cache: "no-store", redirect: "error" });
    showHeaders(reply);
    await measured.read(reply);
    const good = reply.ok && !measured.failed;
    say("status", `${reply.status} ${good ? "done" : "failed"} in ${duration(performance.now() - measured.started)}`, good ? "ok" : "bad");
  } catch (fault) {
    const stopped = fault.name === "AbortError";
    if (controller === mine) say("status", stopped ? `stopped after ${duration(performance.now() - measured.started)}` : "the connection broke off", stopped ? "" : "bad");
  } finally {
    if (controller === mine) {
      leave();
      draw();
    }
  }
}

async function copy() {
  const text = curlOf(request());
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard without a secure origin: the older way asks for a selection.
    const area = element("textarea", { value: text, className: "hidden", ariaHidden: "true" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}

function tabKey(event) {
  const tabs = [...$("tabs").querySelectorAll("button")];
  const at = tabs.findIndex(tab => tab.endpoint === current);
  const steps = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  choose(tabs[(steps[event.key] + tabs.length) % tabs.length].endpoint, true);
}

function reveal() {
  const shown = $("key").type === "password";
  $("key").type = shown ? "text" : "password";
  $("reveal").textContent = shown ? "Hide" : "Show";
  $("reveal").setAttribute("aria-pressed", String(shown));
  draw();
}

function tabs() {
  const made = [];
  for (const endpoint of ENDPOINTS) {
    if (made.at(-1)?.endpoint?.group !== endpoint.group) {
      made.push(element("div", { className: "group", role: "presentation", textContent: endpoint.group === "Refused" ? "Refused to everybody" : `${endpoint.group} dialect` }));
    }
    const method = element("span", { className: `method ${endpoint.method} ${endpoint.group === "Refused" ? "closed" : ""}`, textContent: endpoint.method });
    const tab = element("button", { type: "button", role: "tab", endpoint, onclick: () => choose(endpoint) }, method, endpoint.path);
    tab.setAttribute("aria-controls", "card");
    made.push(tab);
  }
  return made;
}

$("tabs").append(...tabs());
$("tabs").addEventListener("keydown", tabKey);
$("key").addEventListener("input", keyChanged);
$("key").addEventListener("keydown", event => { if (event.key === "Enter") refresh(); });
$("key").addEventListener("change", () => { if (!models.length) refresh(); });
$("reveal").addEventListener("click", reveal);
$("base").addEventListener("input", pinBase);
$("model").addEventListener("change", () => { chosen[kind()] = $("model").value; useModel(); draw(); });
$("refresh").addEventListener("click", refresh);
$("body").addEventListener("input", () => { followBody(); draw(); });
$("run").addEventListener("click", run);
$("stop").addEventListener("click", () => controller && controller.abort());
$("reset").addEventListener("click", () => { $("body").value = initialBody(current); clear(); draw(); });
$("copy").addEventListener("click", copy);
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  if (event.key === "Escape" && controller) controller.abort();
});
// A page that comes back, from the browser's own memory or from a reload that keeps fields, has no key.
addEventListener("pagehide", () => { leave(); $("key").value = ""; });
addEventListener("pageshow", () => { $("key").value = ""; pinBase(); keyChanged(); });
choose(ENDPOINTS[0]);
