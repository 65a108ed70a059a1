// The worker: it fetches the program and the model, and runs them off the page's thread.
//
//   page → worker   {do: "load", manifest}   {do: "generate", options}   {do: "stop"}   {do: "state", tokens: [n, …]}
//   worker → page   {is: "progress", done, total}   {is: "loaded", …}   {is: "token", text, tokens, state}
//                   {is: "ended", why, tokens, firstToken, rate}   {is: "state", tokens, state}   {is: "error", message}
"use strict";
importScripts("wasm_exec.js"); // class Go, of the Go distribution

// Go yields to this event loop by a timer of 1 ms, many times a second. Browsers stretch such timers to 4 ms and more; a
// message to oneself comes back at once, behind those that wait.
const later = self.setTimeout.bind(self), clear = self.clearTimeout.bind(self), soon = new Map(), {port1, port2} = new MessageChannel();
let lastSoon = 0;
self.setTimeout = (call, ms) => {
  if (ms > 1) return later(call, ms);
  soon.set(--lastSoon, {call, due: performance.now() + 1});
  port2.postMessage(lastSoon);
  return lastSoon;
};
self.clearTimeout = id => { if (!soon.delete(id)) clear(id); };
port1.onmessage = ({data: id}) => {
  const timer = soon.get(id);
  if (!timer) return;
  if (performance.now() < timer.due) return port2.postMessage(id);
  soon.delete(id);
  timer.call();
};

const handlers = {
  async load({manifest}) {
    const files = await download(manifest);
    const go = new Go();
    let instance;
    try { ({instance} = await WebAssembly.instantiate(files["photon.wasm"], go.importObject)); } catch (error) {
      throw new Error("This browser cannot run the program, which wants WebAssembly with SIMD: Chrome or Edge 91, Firefox 89, Safari 16.4 " +
        `or newer. (${error.message})`);
    }
    delete files["photon.wasm"];
    go.run(instance).then(() => fail(new Error("The program has ended. Reload the page to start it again.")), fail);
    postMessage({is: "loaded", ...await photon.load(files), state: photon.stateBytes(0)});
  },
  async generate({options}) {
    const end = await photon.generate(options, ({text, tokens}) =>
      postMessage({is: "token", text, tokens, state: photon.stateBytes(tokens)}));
    postMessage({is: "ended", ...end});
  },
  stop() { photon.stop(); },
  state({tokens}) { postMessage({is: "state", tokens, state: tokens.map(n => photon.stateBytes(n))}); },
};

onmessage = async ({data}) => {
  try { await handlers[data.do](data); } catch (error) { fail(error); }
};

function fail(error) { postMessage({is: "error", message: error.message || String(error)}); }

// download fetches all files side by side, from the store of this version if they are there, and unpacks them.
async function download({version, downloads}) {
  const store = self.caches && await caches.open("photon-" + version).catch(() => null);
  const total = downloads.reduce((sum, d) => sum + d.bytes, 0), files = {};
  let done = 0;
  const progress = n => postMessage({is: "progress", done: done += n, total});
  await Promise.all(downloads.map(async d => {
    const packed = await fetchFile(d, store, progress);
    const bytes = new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
    files[d.name] = new Uint8Array(await bytes.arrayBuffer());
  }));
  return files;
}

async function fetchFile({file, bytes}, store, progress) {
  const stored = store && await store.match(file);
  let response = stored;
  if (!response) {
    try { response = await fetch(file, {cache: "no-cache"}); } catch {
      throw new Error(`${file} could not be fetched. Check the connection and press the button again.`);
    }
    if (!response.ok) {
      throw new Error(`${file}: the server said ${response.status} ${response.statusText}. ` +
        "If the page was built anew, reload it; else build it again (go run ./examples/wasm/build).");
    }
  }
  const data = new Uint8Array(bytes), reader = response.body.getReader();
  let at = 0;
  for (;;) {
    let part;
    try { part = await reader.read(); } catch {
      throw new Error(`${file}: the connection broke after ${at} of ${bytes} bytes. Press the button again.`);
    }
    if (part.done) break;
    if (at + part.value.length <= bytes) data.set(part.value, at);
    at += part.value.length;
    progress(part.value.length);
  }
  if (at !== bytes) throw new Error(`${file} has ${at} bytes where the page expects ${bytes}: it is of another build. Reload the page.`);
  // Where there is no room to store it, the page works all the same, but not after a reload without a network.
  if (store && !stored) await store.put(file, new Response(data)).catch(() => {});
  return data;
}
