// The page is the server's; here its requests are answered by a worker of this browser. This script stands
// right before the page's own and takes the place of `fetch` for what the server would be asked.
"use strict";
(() => {
  const network = window.fetch.bind(window);
  const worker = new Worker(`worker.js${location.search}`, { type: "module" });
  const asked = new Map();
  let last = 0;

  const json = (status, body) => new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } });
  const refused = (error) => json(error.param ? 400 : 500, { error });

  worker.onmessage = ({ data: { number, kind, ...rest } }) => {
    if (number == null) return state[kind]?.(rest);
    asked.get(number)?.(kind, rest);
    if (kind !== "event") asked.delete(number);
  };
  worker.onerror = (event) => {
    event.preventDefault();
    const error = { message: `The drawing program could not be started: ${event.message || "this browser does not run it"}. It needs WebAssembly with SIMD: Chrome 91, Firefox 114, Safari 16.4 or newer.` };
    for (const answer of asked.values()) answer("refused", { error });
    asked.clear();
  };
  function send(kind, rest, answer, transfer = []) {
    const number = ++last;
    if (answer) asked.set(number, answer);
    worker.postMessage({ number, kind, ...rest }, transfer);
    return number;
  }

  const models = () => new Promise((resolve) => send("models", {}, (kind, rest) => {
    if (kind === "refused") return resolve(refused(rest.error));
    state.known(rest);
    resolve(json(200, rest.body));
  }));

  // Events as the server sends them.
  const draw = (request, picture, signal) => new Promise((resolve, reject) => {
    const encoder = new TextEncoder();
    let begun = false, control;
    const body = new ReadableStream({ start(controller) { control = controller; } });
    const number = send("draw", { request, picture }, (kind, rest) => {
      if (kind === "refused") return begun ? control.error(new Error(rest.error.message)) : resolve(refused(rest.error));
      if (!begun) { begun = true; resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } })); }
      if (kind === "end") control.close();
      else control.enqueue(encoder.encode(`event: ${rest.name}\ndata: ${JSON.stringify(rest.data)}\n\n`));
    }, picture ? [picture.buffer] : []);
    signal?.addEventListener("abort", () => {
      send("cancel", { of: number });
      asked.delete(number);
      const error = new DOMException("cancelled", "AbortError");
      if (begun) control.error(error); else reject(error);
    });
  });

  async function complete(form, signal) {
    const request = {};
    for (const [name, value] of form) if (typeof value === "string") request[name] = name === "model" ? value : Number(value);
    return draw(JSON.stringify(request), new Uint8Array(await form.get("image").arrayBuffer()), signal);
  }

  window.fetch = async (path, options = {}) => {
    if (typeof path !== "string" || !path.startsWith("v1/")) return network(path, options);
    if (path === "v1/models") return models();
    if (path === "v1/pictures") return draw(options.body, null, options.signal);
    if (path === "v1/completions/pictures") return complete(options.body, options.signal);
    if (options.method === "DELETE") { send("cancel", { of: Number(path.split("/").pop()) }); return json(200, {}); }
    return json(404, { error: { message: `${path} is not here` } });
  };

  // ---- What the server's page does not have: where the weights are, and how much of them has come.

  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const state = {
    line: null, bar: null,
    known({ cached, bytes }) {
      if (!cached) this.line.textContent = `The first picture fetches the model, ${megabytes(bytes)}; this browser keeps it.`;
    },
    progress({ loaded, total }) {
      this.bar.hidden = false; this.bar.max = total; this.bar.value = loaded;
      this.line.textContent = `Fetching the model: ${megabytes(loaded)} of ${megabytes(total)}`;
    },
    ready({ gpu }) {
      this.bar.hidden = true;
      this.line.textContent = `The model is in this browser and draws ${gpu == null ? "by WebAssembly" : `on its GPU by WebGPU${gpu && ` (${gpu})`}`}. Nothing is sent anywhere.`;
    },
  };
  document.querySelector('a[href="openapi.json"]').remove();
  document.querySelector('a[href="licences"]').href = "licences.txt";
  state.line = Object.assign(document.createElement("p"), { className: "hint", id: "weights" });
  state.bar = Object.assign(document.createElement("progress"), { id: "fetched", hidden: true });
  state.bar.setAttribute("aria-label", "The model, fetched so far");
  state.bar.style.cssText = "width:100%;height:6px;accent-color:var(--accent)";
  document.querySelector(".goes").after(state.bar, state.line);
})();
