// The page: what the worker says (worker.js has the protocol) becomes text, figures and a picture.
"use strict";
const $ = id => document.getElementById(id);

const beginnings = ["Once upon a time", "The little dragon could not", "\"Are we lost?\" asked Tom.", "Deep in the forest, an old bear",
  "Mia found a key under the stone."];
const colours = ["var(--accent)", "var(--flat)", "var(--rival)"]; // in the order of photon.stateBytes
const labels = ["This model", "Flat Transformer", "Flat, one layer sees all"];
const marks = [["photon", 0.98], ["flat", 0.7], ["flat with windows", 0.9]]; // words at the lines, and how far along

let worker, manifest, busy = false;
let pressed = 0, firstAt = 0, tokensHere = 0; // of the text that is being written: milliseconds, milliseconds, tokens
let curve = null, far = 4096, here = 0;       // the picture: samples, its last length, the text's length

// ——— the model ———

async function start() {
  for (const [what, has] of [["WebAssembly", self.WebAssembly], ["Web Workers", self.Worker], ["DecompressionStream", self.DecompressionStream]]) {
    if (!has) return fail(`This browser has no ${what}. Use Chrome 80, Firefox 113, Safari 16.4 or a later one.`);
  }
  if (location.protocol === "file:") return fail("A page from a file may not start a worker. Serve it: go run ./examples/wasm/serve");
  if (navigator.serviceWorker) navigator.serviceWorker.register("offline.js").catch(() => {}); // without it: no reload offline
  try {
    const response = await fetch("files.json", {cache: "no-cache"});
    if (!response.ok) throw new Error(`the server said ${response.status}`);
    manifest = await response.json();
  } catch (error) {
    return fail(`files.json could not be read (${error.message}). Build the page (go run ./examples/wasm/build) and reload it.`);
  }
  $("size").textContent = await isStored() ? "It is stored on this device: nothing has to be downloaded." :
    `${size(sum(manifest.downloads, d => d.bytes))} to download, once: ` +
    manifest.downloads.filter(d => d.bytes > 1e5).map(d => `${d.name} ${size(d.bytes)}`).join(", ") + ". Then the page works without a network.";
  $("load").disabled = false;
}

async function isStored() {
  if (!self.caches) return false;
  const store = await caches.open("photon-" + manifest.version);
  return (await Promise.all(manifest.downloads.map(d => store.match(d.file)))).every(Boolean);
}

$("load").onclick = () => {
  clearError();
  $("load").hidden = true;
  $("loading").hidden = false;
  worker?.terminate();
  worker = new Worker("worker.js");
  worker.onmessage = ({data}) => heard[data.is](data);
  worker.onerror = event => heard.error({message: `The worker failed (${event.message || "it could not be loaded"}). Reload the page.`});
  worker.postMessage({do: "load", manifest});
};

const heard = {
  progress({done, total}) {
    $("bar").max = total;
    $("bar").value = done;
    $("bar-label").textContent = done < total ? `Loading: ${size(done)} of ${size(total)}` : "Starting the model…";
  },
  loaded({parameters, flatParameters}) {
    for (const id of ["write", "story", "picture"]) $(id).hidden = false;
    $("get").hidden = true;
    $("about").textContent = `This model has ${millions(parameters)} parameters, the flat Transformer ${millions(flatParameters)}. ` +
      "The third line is the flat one with windows of 64 tokens, but for one layer that sees everything.";
    $("status").textContent = "The model is ready.";
    $("prompt").focus();
    askForPicture();
  },
  token({text, tokens, state}) {
    const now = performance.now();
    if (!firstAt) {
      firstAt = now;
      $("first").textContent = `${Math.round(now - pressed)} ms`;
    } else tokensHere++;
    queue.text += text;
    Object.assign(queue, {tokens, state, rate: tokensHere / (now - firstAt) * 1000});
    if (!queue.drawn) queue.drawn = requestAnimationFrame(draw);
  },
  ended({why, tokens, written, rate}) {
    finish();
    if (rate) $("rate").textContent = rate.toFixed(1);
    const reason = {"end of text": "the story is over", "max tokens": "as long as asked for", stopped: "stopped"}[why] || why;
    $("status").textContent = `${written} tokens written: ${reason}.`;
    $("more").disabled = why === "end of text" || tokens === 0;
  },
  state({tokens, state}) {
    if (curve && tokens.at(-1) < far) return; // of an older question
    curve = {tokens, state};
    drawPicture();
  },
  error({message}) {
    if (busy) finish();
    if (!$("get").hidden) {
      $("load").hidden = false;
      $("loading").hidden = true;
    }
    fail(message);
  },
};

// ——— writing ———

function write(more) {
  if (busy || !$("form").reportValidity()) return;
  clearError();
  busy = true;
  pressed = performance.now();
  firstAt = tokensHere = 0;
  if (!more) {
    const prompt = document.createElement("span");
    prompt.className = "prompt";
    prompt.textContent = $("prompt").value;
    $("text").replaceChildren(prompt, document.createTextNode(""));
  }
  $("rate").textContent = $("first").textContent = "…";
  $("status").textContent = "Writing. Escape stops it.";
  $("text").setAttribute("aria-busy", "true");
  $("stop").disabled = false;
  if ($("text").getBoundingClientRect().bottom > innerHeight) $("buttons").scrollIntoView(); // Stop and the story, on a phone
  if (["start", "more"].includes(document.activeElement?.id)) $("stop").focus({preventScroll: true});
  $("start").disabled = $("more").disabled = true;
  const number = id => $(id).valueAsNumber;
  worker.postMessage({do: "generate", options: {prompt: $("prompt").value, more, temperature: number("temperature"),
    topP: number("top-p"), seed: number("seed"), maxTokens: number("length")}});
}

function finish() {
  draw();
  drawPicture();
  busy = false;
  $("text").removeAttribute("aria-busy");
  const back = document.activeElement === $("stop");
  $("stop").disabled = true;
  $("start").disabled = false;
  if (back) $("start").focus({preventScroll: true});
  for (const id of ["first", "rate"]) if ($(id).textContent === "…") $(id).textContent = "–";
}

const stop = () => { if (busy) worker.postMessage({do: "stop"}); };

$("form").onsubmit = event => { event.preventDefault(); write(false); };
$("more").onclick = () => write(true);
$("stop").onclick = stop;
$("dice").onclick = () => { $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0]; };
addEventListener("keydown", event => { if (event.key === "Escape") stop(); });
$("prompt").onkeydown = event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); write(false); } };

for (const text of beginnings) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.onclick = () => { $("prompt").value = text; if (!busy) $("start").focus(); };
  $("presets").append(button);
}

// draw puts what has come since the last frame onto the page.
const queue = {text: "", drawn: 0};
function draw() {
  cancelAnimationFrame(queue.drawn);
  queue.drawn = 0;
  if (!queue.state) return;
  const box = $("text"), follows = box.scrollTop + box.clientHeight >= box.scrollHeight - 30;
  box.lastChild.appendData(queue.text);
  if (follows) box.scrollTop = box.scrollHeight;
  if (queue.rate > 0 && busy) $("rate").textContent = queue.rate.toFixed(1);
  $("tokens").textContent = here = queue.tokens;
  $("state").textContent = size(queue.state[0]);
  Object.assign(queue, {text: "", now: queue.state, state: null});
  if (here > far) {
    while (here > far) far *= 2;
    askForPicture();
  }
  if (performance.now() - pictured > 250) drawPicture(); // not every frame: where there is no GPU the model's time goes into it
}

// ——— the picture ———

let pictured = 0; // when it was drawn

function askForPicture() {
  const samples = 128;
  const tokens = [32768, ...Array.from({length: samples + 1}, (_, i) => Math.round(far * i / samples))];
  worker.postMessage({do: "state", tokens});
}

function drawPicture() {
  if (!curve) return;
  pictured = performance.now();
  const width = Math.max(240, $("chart").clientWidth), height = Math.min(270, 0.7 * width); // in pixels, so that the words keep their size
  $("chart").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [left, top, right, bottom] = [52, 8, width - 6, height - 28];
  const [farRow, ...rows] = curve.state, [, ...xs] = curve.tokens;
  const highest = Math.max(...rows.at(-1)) * 1.04, last = xs.at(-1);
  const x = tokens => left + (right - left) * tokens / last, y = bytes => bottom - (bottom - top) * bytes / highest;
  const parts = [];
  const step = niceStep(highest / 5);
  for (let bytes = 0; bytes <= highest; bytes += step) {
    parts.push(`<line class="grid" x1="${left}" x2="${right}" y1="${y(bytes)}" y2="${y(bytes)}"/>`,
      `<text x="${left - 6}" y="${y(bytes) + 4}" text-anchor="end">${bytes ? Math.round(bytes / 1e6) + " MB" : "0"}</text>`);
  }
  for (let i = 0; i <= 4; i += width < 420 ? 2 : 1) {
    const anchor = i === 4 ? "end" : i ? "middle" : "start";
    parts.push(`<text x="${x(last * i / 4)}" y="${bottom + 20}" text-anchor="${anchor}">${grouped(last * i / 4)}${i === 4 ? " tokens" : ""}</text>`);
  }
  colours.forEach((colour, i) => {
    const [word, along] = marks[i], at = Math.round(along * (xs.length - 1));
    parts.push(`<text x="${x(xs[at])}" y="${y(rows[at][i]) - 9}" text-anchor="end" style="fill:${colour}">${word}</text>`);
    parts.push(`<path style="stroke:${colour}" d="M${xs.map((n, j) => `${x(n).toFixed(1)},${y(rows[j][i]).toFixed(1)}`).join("L")}"/>`);
  });
  if (here && queue.now) {
    parts.push(`<line class="now" x1="${x(here)}" x2="${x(here)}" y1="${top}" y2="${bottom}"/>`);
    colours.forEach((colour, i) => parts.push(`<circle style="fill:${colour}" cx="${x(here)}" cy="${y(queue.now[i])}" r="5"/>`));
  }
  $("chart").innerHTML = parts.join("");
  const columns = [[here ? `Now (${grouped(here)})` : "Now", queue.now], [grouped(last), rows.at(-1)]];
  if (last < 32768) columns.push(["32,768", farRow]);
  $("lengths").innerHTML = `<th scope="col">Tokens of text</th>` + columns.map(([name]) => `<th scope="col">${name}</th>`).join("");
  $("sizes").innerHTML = labels.map((label, i) => `<tr><th scope="row"><span class="key" style="background:${colours[i]}"></span>${label}</th>` +
    columns.map(([, state]) => `<td>${state ? size(state[i]) : "–"}</td>`).join("") + "</tr>").join("");
}

new ResizeObserver(drawPicture).observe($("chart"));

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map(n => n * power).find(n => n >= least);
}

// ——— words ———

const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);
const grouped = n => n.toLocaleString("en");
const millions = n => (n / 1e6).toFixed(1) + " million";
const size = bytes => bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
function fail(message) { $("error").textContent = message; $("error").hidden = false; }
function clearError() { $("error").hidden = true; }

start();
