// Draws, beside the page: the model in WebAssembly. The page (local.js) says what; every message of an
// answer carries the number of its request.
import start, { Artist, describeModel } from "./alitok_web.js";

const say = (number, kind, rest = {}) => postMessage({ number, kind, ...rest });

// What Rust throws is the JSON of an `error`; all else is a bug or the network.
function refusal(error) {
  if (typeof error === "string") { try { return JSON.parse(error); } catch { return { message: error }; } }
  return { message: error?.message ?? String(error) };
}

// ---- The model

let manifest;
const described = (async () => {
  await start();
  const response = await fetch("model/manifest.json");
  if (!response.ok) throw new Error(`model/manifest.json: the server answered ${response.status}`);
  manifest = await response.json();
  return describeModel(manifest.name, JSON.stringify(manifest.config), JSON.stringify(manifest.classes));
})();
described.catch(() => {}); // told to whoever asks for models

// Names of files hold a digest of their content, so a cached one is never old.
const weightsCache = () => (globalThis.caches ? caches.open("alitok-weights").catch(() => null) : null);
const places = () => Object.values(manifest.files).map(({ file }) => new URL(`model/${file}`, location.href).href);

async function isCached() {
  const cache = await weightsCache();
  if (!cache) return false;
  const found = await Promise.all(places().map((place) => cache.match(place)));
  return found.every(Boolean);
}

// One file of weights: from the cache or the network, gunzipped. `take` is told of every byte that came.
async function weights({ file, bytes, unpacked }, cache, take) {
  const place = new URL(`model/${file}`, location.href).href;
  let packed = await cache?.match(place);
  const known = Boolean(packed);
  packed ??= await fetch(place);
  if (!packed.ok) throw new Error(`${file}: the server answered ${packed.status}`);
  const counted = new TransformStream({ transform(part, out) { take(part.length); out.enqueue(part); } });
  let stream = packed.body.pipeThrough(counted);
  let kept = Promise.resolve();
  if (!known && cache) {
    const [one, other] = stream.tee();
    stream = one;
    // A full disk or a private window: it is fetched again next time.
    kept = cache.put(place, new Response(other)).catch(() => {});
  }
  const plain = new Uint8Array(await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  if (plain.length !== unpacked) throw new Error(`${file} has ${plain.length} bytes where ${unpacked} belong; reload the page`);
  await kept;
  return plain;
}

// The GPU draws where there is one that is no program on the CPU; `?device=wasm` and `?device=webgpu` in the
// page's address choose.
async function wantsGpu() {
  const chosen = new URL(location.href).searchParams.get("device");
  if (chosen === "wasm" || !navigator.gpu) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return Boolean(adapter) && (chosen === "webgpu" || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
}

let loading = null;
function load() {
  return loading ??= (async () => {
    const cache = await weightsCache();
    const files = Object.values(manifest.files);
    const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
    let loaded = 0, told = 0;
    const take = (count) => {
      loaded += count;
      if (performance.now() - told > 60 || loaded === total) { told = performance.now(); say(null, "progress", { loaded, total }); }
    };
    const [tokenizer, generator] = await Promise.all(["tokenizer", "generator"].map((name) => weights(manifest.files[name], cache, take)));
    const open = (gpu) => Artist.open(manifest.name, JSON.stringify(manifest.config), JSON.stringify(manifest.classes), tokenizer, generator, gpu);
    let artist = null;
    if (await wantsGpu()) artist = await open(true).catch((error) => { console.warn(`not on the GPU: ${refusal(error).message}`); return null; });
    artist ??= await open(false);
    say(null, "ready", { gpu: artist.gpu() });
    // Files of older pages are in nobody's way any more.
    if (cache) for (const request of await cache.keys()) if (!places().includes(request.url)) await cache.delete(request);
    return artist;
  })().catch((error) => { loading = null; throw error; });
}

// ---- Drawing

const cancelled = new Set();
// A turn of the event loop, so that word of a cancelled request can come in.
const { port1, port2 } = new MessageChannel();
const breathe = () => new Promise((resolve) => { port1.onmessage = resolve; port2.postMessage(null); });
// While a GPU computes there is nothing to do.
const rest = () => new Promise((resolve) => setTimeout(resolve, 1));

async function draw(number, request, picture) {
  await described;
  const artist = await load();
  // The time to fetch weights is not the picture's.
  const asked = performance.now();
  const since = () => Math.round(performance.now() - asked);
  const session = artist.begin(request, picture), waits = artist.gpu() != null;
  try {
    say(number, "event", { name: "queued", data: { id: String(number), ...JSON.parse(session.facts()) } });
    const first = {};
    const tell = ({ event, ...data }) => {
      if (event === "prefix" || event === "row") first[data.index] ??= since();
      if (event === "finished") data.timing = { queued_ms: 0, first_row_ms: first[data.index] ?? 0, total_ms: since() };
      say(number, "event", { name: event, data });
    };
    while (!session.isOver()) {
      const news = session.step();
      if (news) tell(JSON.parse(news));
      await (news || !waits ? breathe() : rest());
      if (cancelled.has(number)) JSON.parse(session.cancel()).forEach(({ event, index, error }) => tell({ event, index, error }));
    }
  } finally { session.free(); }
}

// Requests are drawn one after the other.
let turn = Promise.resolve();
const work = {
  async models(number) {
    const model = JSON.parse(await described);
    const cached = await isCached();
    const bytes = Object.values(manifest.files).reduce((sum, { bytes }) => sum + bytes, 0);
    say(number, "answer", { body: { object: "list", data: [model] }, cached, bytes });
    if (cached) await load().catch(() => {}); // told to whoever draws
  },
  draw(number, { request, picture }) { return (turn = turn.catch(() => {}).then(() => draw(number, request, picture))); },
  cancel(_, { of }) { cancelled.add(of); },
};

onmessage = async ({ data: { number, kind, ...rest } }) => {
  try {
    await work[kind](number, rest);
    if (kind === "draw") say(number, "end");
  } catch (error) { say(number, "refused", { error: refusal(error) }); }
};
