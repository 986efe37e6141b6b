// Drives the built page in a browser: draws each class, watches rows appear, compares tokens with those of
// the command line, cancels, completes a picture, reloads and finds the model in the cache.
//
//     npm install playwright-core           # and a Chromium: apt-get install chromium
//     node web/tests/page.mjs --alitok target/release/alitok [--page web/dist] [--pictures FOLDER] [--webgpu]
//
// WebAssembly multiplies and adds in two roundings, as the CPU engine does without vector instructions. So the
// command line is run with ALITOK_INSTRUCTIONS=portable, and its pictures must be the page's to the bit.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { inflateSync } from "node:zlib";

const { values: given } = parseArgs({ options: {
  alitok: { type: "string" }, page: { type: "string", default: "web/dist" }, pictures: { type: "string" },
  chromium: { type: "string", default: "/usr/bin/chromium" }, webgpu: { type: "boolean", default: false },
} });
assert(given.alitok, "--alitok names the command line's program");
const { chromium } = createRequire(join(process.cwd(), "web/tests/"))("playwright-core");

// ---- The page, as any static host serves it

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json", ".gz": "application/octet-stream", ".txt": "text/plain" };
const asked = [];
const server = createServer((request, response) => {
  const path = normalize(new URL(request.url, "http://localhost").pathname).replace(/\/$/, "/index.html");
  asked.push(path);
  try {
    const body = readFileSync(join(given.page, path));
    response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch { response.writeHead(404).end(); }
}).listen(0, "127.0.0.1");
await new Promise((resolve) => server.on("listening", resolve));
const url = `http://127.0.0.1:${server.address().port}/`;

// ---- What the command line draws

const folder = mkdtempSync(join(tmpdir(), "alitok-web-"));
function tensor(file, name) {
  const bytes = readFileSync(file), length = Number(bytes.readBigUInt64LE(0));
  const { shape: [rows, columns], data_offsets: [start, end] } = JSON.parse(bytes.subarray(8, 8 + length))[name];
  const numbers = Array.from(new BigInt64Array(bytes.buffer.slice(bytes.byteOffset + 8 + length + start, bytes.byteOffset + 8 + length + end)), Number);
  return Array.from({ length: rows }, (_, row) => numbers.slice(row * columns, (row + 1) * columns));
}
// A PNG's rows with their filters, which both programs choose alike; how well they are deflated is another matter.
function pixels(png) {
  const parts = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    if (png.toString("latin1", at + 4, at + 8) === "IDAT") parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  return inflateSync(Buffer.concat(parts));
}
function native(name, seed, count, options = []) {
  const draw = (out) => execFileSync(given.alitok, ["generate", "--model", "mini", "--class", name, "--seed", seed, "--count", count, ...options, "--out", out], { env: { ...process.env, ALITOK_INSTRUCTIONS: "portable" }, stdio: "pipe" });
  const tokens = join(folder, "tokens.safetensors"), pictures = join(folder, "pictures");
  draw(tokens);
  rmSync(pictures, { recursive: true, force: true });
  draw(pictures);
  return { tokens: tensor(tokens, "tokens"), folder: pictures };
}

// ---- The page

const flags = ["--no-sandbox"];
if (given.webgpu) flags.push("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-unsafe-swiftshader");
const browser = await chromium.launch({ executablePath: given.chromium, args: flags });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
const problems = [];
async function open() {
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error") problems.push(line.text()); });
  await page.goto(`${url}?device=${given.webgpu ? "webgpu" : "wasm"}`);
  await page.waitForFunction(() => document.querySelector("#class").value !== "");
  return page;
}
const shot = (page, name) => given.pictures ? page.screenshot({ path: join(given.pictures, `web-${given.webgpu ? "webgpu-" : ""}${name}.png`) }) : null;
const records = (page) => page.evaluate(() => new Promise((resolve, reject) => {
  const opening = indexedDB.open("alitok", 1);
  opening.onerror = () => reject(opening.error);
  opening.onsuccess = () => { const all = opening.result.transaction("pictures").objectStore("pictures").getAll(); all.onsuccess = () => resolve(all.result); };
}));
async function choose(page, name, seed, count) {
  await page.locator("#class").click();
  await page.locator("#class").fill(name.slice(0, 4));
  await page.locator("#options li", { hasText: name }).first().click();
  await page.locator("#seed").fill(String(seed));
  await page.locator(`[name=count][value='${count}']`).check({ force: true });
}
async function finished(page, count) {
  await page.waitForFunction((count) => document.querySelectorAll(".card .plate img").length === count && !document.querySelector("#go").classList.contains("stop"), count, { timeout: 600_000 });
}

try {
  // The tokens of the command line, and its pictures.
  const compare = async (page, name, seed, count, options) => {
    const expected = native(name, seed, count, options);
    const drawn = (await records(page)).filter((record) => record.title === name && record.seed === seed).sort((a, b) => a.index - b.index);
    assert.equal(drawn.length, count);
    for (const [place, { tokens, png }] of drawn.entries()) {
      assert.deepEqual(tokens, expected.tokens[place], `${name}, seed ${seed}, picture ${place}`);
      const file = execFileSync("ls", [expected.folder]).toString().split("\n").filter((line) => line.endsWith(".png")).sort()[place];
      if (!given.webgpu) assert(pixels(Buffer.from(png, "base64")).equals(pixels(readFileSync(join(expected.folder, file)))), `${name}, picture ${place}: other pixels`);
    }
    console.log(`${name}, seed ${seed}: the tokens${given.webgpu ? "" : " and pixels"} of ${count} pictures are the command line's`);
  };
  let page = await open();
  if (given.webgpu) {
    // A driver on the CPU takes minutes: one picture.
    await choose(page, "Flags", 5, 1);
    await page.locator("#go").click();
    await finished(page, 1);
    assert.match(await page.locator("#weights").textContent(), /draws on its GPU by WebGPU/);
    await compare(page, "Flags", 5, 1);
    await page.waitForTimeout(700);
    await shot(page, "drawn");
    assert.deepEqual(problems, []);
    console.log("passed with WebGPU");
    await browser.close();
    rmSync(folder, { recursive: true, force: true });
    process.exit();
  }
  assert.match(await page.locator("#weights").textContent(), /fetches the model, \d+\.\d MB/);
  await shot(page, "start");

  // Every row appears, and progress of the model before.
  await page.evaluate(() => {
    window.seen = { rows: new Set(), fetched: new Set() };
    new MutationObserver(() => {
      for (const text of document.querySelectorAll(".caption .what span")) if (text.textContent.startsWith("row ")) window.seen.rows.add(text.textContent);
      const weights = document.querySelector("#weights").textContent;
      if (weights.startsWith("Fetching")) window.seen.fetched.add(weights);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await choose(page, "Animals & Nature", 12, 4);
  await page.locator("#go").click();
  await page.waitForFunction(() => [...window.seen.rows].some((row) => row.startsWith("row 4 ")), null, { timeout: 120_000, polling: 5 });
  await shot(page, "drawing");
  await finished(page, 4);
  const seen = await page.evaluate(() => ({ rows: [...window.seen.rows], fetched: [...window.seen.fetched] }));
  for (let row = 1; row <= 8; row++) assert(seen.rows.includes(`row ${row} of 8`), seen.rows.join());
  assert(seen.fetched.length > 1, "progress of the model");
  assert.match(await page.locator("#weights").textContent(), /draws by WebAssembly/);
  await page.waitForTimeout(700);
  await shot(page, "drawn");

  await compare(page, "Animals & Nature", 12, 4);
  for (const [name, seed] of [["Flags", 5], ["Smileys & Emotion", 1], ["Food & Drink", 77]]) {
    await choose(page, name, seed, 2);
    await page.locator("#go").click();
    await finished(page, 2);
    await compare(page, name, seed, 2);
  }
  // Without guidance.
  await choose(page, "Objects", 9, 1);
  await page.locator("#guidance").fill("1");
  await page.locator("#go").click();
  await finished(page, 1);
  await compare(page, "Objects", 9, 1, ["--guidance", "1"]);
  await page.locator("summary").click();
  await page.locator("#defaults").click();

  // One picture, timed by the worker.
  const times = [];
  for (const seed of [100, 101, 102]) {
    await choose(page, "Flags", seed, 1);
    await page.locator("#go").click();
    await finished(page, 1);
    times.push((await records(page)).find((record) => record.seed === seed).ms);
  }
  console.log(`a guided picture with its previews takes ${times.join(", ")} ms`);

  // Cancel.
  await choose(page, "Flags", 6, 9);
  await page.evaluate(() => new Promise((done) => { document.querySelector("#go").click(); setTimeout(() => { document.querySelector("#go").click(); done(); }, 60); }));
  await page.waitForFunction(() => document.querySelector(".card.failed") && !document.querySelector("#go").classList.contains("stop"));
  assert(!(await page.locator("#problem").isVisible()));

  // Complete a picture that was drawn, below its upper half: what is kept stays.
  const [first] = await records(page);
  await choose(page, "Animals & Nature", 3, 2);
  await page.evaluate((png) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))], "dropped.png", { type: "image/png" }));
    for (const name of ["dragenter", "dragover", "drop"]) document.querySelector("#stage").dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: data }));
  }, first.png);
  await page.waitForFunction(() => document.querySelector("#handle").getAttribute("aria-valuenow") === "4");
  await page.locator("#go").click();
  await finished(page, 2);
  const completed = (await records(page)).slice(-2);
  assert.equal(completed[0].kept.length, 8 + 4 * 8);
  assert.deepEqual(completed[0].tokens.slice(0, 40), completed[1].tokens.slice(0, 40));
  assert.notDeepEqual(completed[0].tokens, completed[1].tokens);
  await shot(page, "completed");

  // A second visit fetches no weights.
  await page.close();
  asked.length = 0;
  page = await open();
  await page.waitForFunction(() => /is in this browser/.test(document.querySelector("#weights").textContent));
  assert(!asked.some((path) => path.endsWith(".gz")), asked.join());
  await choose(page, "Flags", 8, 1);
  await page.locator("#go").click();
  await finished(page, 1);
  assert.deepEqual(problems, []);
  console.log("passed");
} finally {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true, force: true });
}
